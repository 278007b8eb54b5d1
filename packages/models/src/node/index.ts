export * from './fileSource.ts';
export * from './modelFolder.ts';
