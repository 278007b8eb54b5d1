export {
  ConfigError,
  type ConfigReader,
  configReader,
  type JsonConfig,
  type JsonValue,
  parseConfig,
} from '@deftjs/tensor';
