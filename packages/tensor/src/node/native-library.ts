import { constants } from 'node:os';

// Not in os.constants. glibc's value; on other systems only names the system itself finds are loaded.
const RTLD_NODELETE = 0x1000;

/**
 * True once the shared library is in the process, to stay until it ends.
 *
 * The dynamic linker satisfies a later request for the same soname from what is already loaded. So a driver whose
 * libraries lie in a private folder needs no `LD_LIBRARY_PATH` (which is only read when a process starts): its
 * libraries are loaded first, in dependency order. `process.dlopen` does it without a foreign-function package:
 * it loads the file, finds that it is no addon and closes it again, which RTLD_NODELETE turns into nothing.
 *
 * @param file an absolute path, or a bare soname to search for in the system's folders
 */
export function loadLibrary(file: string): boolean {
  try {
    process.dlopen({ exports: {} }, file, constants.dlopen.RTLD_NOW | RTLD_NODELETE);
    return true;
  } catch (error) {
    return String(error).includes('did not self-register');
  }
}
