export { loadPeftFolder, savePeftFolder } from './peftFolder.ts';
export { readAdapter } from './readAdapter.ts';
