export {
  type AdapterAttempt,
  type AdapterChoice,
  type AdapterKind,
  type AdapterRequest,
  type AdapterSearch,
  type Driver,
  describeSearch,
  type ResolvedAdapter,
  resolveAdapter,
  searchAdapter,
} from './adapter.ts';
export { cacheRoot } from './cache.ts';
export { type DeviceName, type OpenedDevice, openDevice } from './open.ts';
export { replaceFile } from './replaceFile.ts';
