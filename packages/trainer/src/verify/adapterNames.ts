/** PEFT's names for the parameters of an adapter, from our paths: `fc1.adapters.default.lora_A`. */

function partsOf(path: string): { layer: string; adapter: string; name: string; suffix: string } {
  const [, layer, adapter, name] = /^(.+)\.adapters\.(\w+)\.(\w+)$/.exec(path)!;
  return {
    layer: `base_model.model.${layer}`,
    adapter: adapter!,
    name: name!,
    suffix: name!.startsWith('lora_') ? '.weight' : '',
  };
}

/** The name in memory: `base_model.model.fc1.lora_A.default.weight`. */
export function memoryName(path: string): string {
  const { layer, adapter, name, suffix } = partsOf(path);
  return `${layer}.${name}.${adapter}${suffix}`;
}

/** The name in a file: `base_model.model.fc1.lora_A.weight`. */
export function fileName(path: string): string {
  const { layer, name, suffix } = partsOf(path);
  return `${layer}.${name}${suffix}`;
}
