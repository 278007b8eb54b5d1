// Peers are installed by the benchmark alone: the type check of the repository does without their types.
declare module '@jax-js/jax';
declare module '@tensorflow/tfjs';
declare module '@tensorflow/tfjs-backend-wasm';
declare module '@tensorflow/tfjs-backend-webgpu';
