/** Which paths of a tree or a module ("blocks.0.norm.weight") are meant: those that the pattern is found in. */
export type PathTest = RegExp | ((path: string) => boolean);

/** Whether the path is meant. */
export function matchesPath(test: PathTest, path: string): boolean {
  return test instanceof RegExp ? path.search(test) >= 0 : test(path);
}
