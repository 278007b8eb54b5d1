import { UserError } from '../userError.ts';

/** A reader of one numeric option. @throws {UserError} naming the option and its range */
export function numberOption(name: string, min: number, max: number, { whole = false } = {}) {
  return (written: string): number => {
    const value = Number(written);
    if (written.trim() === '' || !(value >= min && value <= max) || (whole && !Number.isInteger(value))) {
      const kind = whole ? 'a whole number' : 'a number';
      throw new UserError(`--${name}: expected ${kind} from ${min} to ${max}; got "${written}"`, 2);
    }
    return value;
  };
}
