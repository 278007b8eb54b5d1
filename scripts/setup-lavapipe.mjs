// npm run setup:lavapipe: puts lavapipe, Mesa's software Vulkan driver, into the cache. Needs apt-get, dpkg-deb and
// a reachable Debian or Ubuntu mirror, but no root: apt works on private folders and nothing is installed.
// It is about five times as fast as SwiftShader and has shader-f16.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { basename, join } from 'node:path';
import { cacheRoot } from '../packages/tensor/src/node/cache.ts';
import { cachedLavapipe } from '../packages/tensor/src/node/software-driver.ts';

const MIN_MESA_MAJOR = 25; // the oldest that Dawn was seen to accept; 22.3 is refused
const WORK_PREFIX = 'lavapipe-work-';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const BACKPORTS_SOURCES = ['bookworm', 'bookworm-backports']
  .map((suite) => `deb [signed-by=${KEYRING}] http://deb.debian.org/debian ${suite} main\n`)
  .join('');
// A second copy of what Node itself runs on must never be loaded; data files are of no use.
const NOT_WANTED = /^(libc6|libgcc-s1|libstdc\+\+6|gcc-.*|libcrypt1|.*-data|.*-common)_/;

/**
 * The output of a command.
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 */
function output(command, args, options) {
  return execFileSync(command, args, { timeout: 300_000, stdio: 'pipe', encoding: 'utf8', ...options });
}

/**
 * A function that runs apt-get on folders of its own under `work`, as if no package were installed: the answer is
 * then the whole closure and does not depend on this machine.
 * @param {string} work
 */
function privateApt(work) {
  const folders = ['state/lists/partial', 'cache/archives/partial', 'debs', 'root', 'lib'];
  for (const folder of folders) fs.mkdirSync(join(work, folder), { recursive: true });
  fs.writeFileSync(join(work, 'status'), '');
  const options = {
    'Dir::State': join(work, 'state'),
    'Dir::State::status': join(work, 'status'),
    'Dir::Cache': join(work, 'cache'),
    'Debug::NoLocking': 'true',
    'APT::Sandbox::User': '', // or apt as root gives up its rights and cannot write here
    'Acquire::Retries': '2',
    'Acquire::http::Timeout': '20',
  };
  const bookworm = /^VERSION_CODENAME=bookworm$/m.test(fs.readFileSync('/etc/os-release', 'utf8'));
  if (bookworm) {
    // Bookworm's own Mesa is too old, its backports are not. Elsewhere the system's own sources must do.
    fs.writeFileSync(join(work, 'sources.list'), BACKPORTS_SOURCES);
    Object.assign(options, {
      'Dir::Etc::sourcelist': join(work, 'sources.list'),
      'Dir::Etc::sourceparts': '-',
    });
  }
  const flags = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  const release = bookworm ? ['-t', 'bookworm-backports'] : [];
  return (/** @type {string[]} */ ...args) =>
    output('apt-get', [...flags, ...release, ...args], { cwd: join(work, 'debs') });
}

/**
 * Downloads the driver and its closure into `work`/debs and returns Mesa's version, like "25.0.7".
 * @param {string} work
 */
function download(work) {
  const apt = privateApt(work);
  apt('update');
  const wanted = ['mesa-vulkan-drivers', 'libvulkan1'];
  const lines = apt('install', '--print-uris', '--yes', '--no-install-recommends', ...wanted).split('\n');
  // 'http://.../libdrm2_2.4.123-1~bpo12+1_amd64.deb' libdrm2_2.4.123-1~bpo12+1_amd64.deb 38648 MD5Sum:...
  const files = lines.filter((line) => line.startsWith("'")).map((line) => line.split(' ')[1] ?? '');
  const mesa = files.find((file) => file.startsWith('mesa-vulkan-drivers_')) ?? '';
  const version = /_(?:\d+%3a)?(\d+[\d.]*)/.exec(mesa)?.[1] ?? '0';
  if (Number.parseInt(version, 10) < MIN_MESA_MAJOR) {
    throw new Error(`needs Mesa ${MIN_MESA_MAJOR} or newer; this system's package sources have ${version}`);
  }
  const packages = files
    .filter((file) => !NOT_WANTED.test(file))
    .map((file) => {
      const [name, debVersion] = file.split('_');
      return `${name}=${decodeURIComponent(debVersion ?? '')}`;
    });
  apt('download', ...packages); // checks signatures and hashes
  return version;
}

/**
 * Copies the driver and those libraries that it needs into `target`/lib and returns the libraries' names, each after
 * those it depends on itself.
 * @param {string} work
 * @param {string} target
 */
function collect(work, target) {
  for (const deb of fs.readdirSync(join(work, 'debs')))
    output('dpkg-deb', ['-x', join(work, 'debs', deb), join(work, 'root')]);
  const all = join(work, 'lib');
  const unpacked = fs.readdirSync(join(work, 'root'), { recursive: true, encoding: 'utf8' });
  for (const path of unpacked.filter((file) => /\.so(\.\d+)*$/.test(file))) {
    const file = join(work, 'root', path);
    // Follows links, so that each soname is a file. Absolute links lead out of the tree and are of no use.
    if (fs.statSync(file, { throwIfNoEntry: false })?.isFile())
      fs.copyFileSync(file, join(all, basename(file)));
  }
  const env = { ...process.env, LD_LIBRARY_PATH: all };
  const needs = (/** @type {string} */ name) =>
    output('ldd', [join(all, name)], { env })
      .split('\n')
      .map((line) => / => (\S+)/.exec(line)?.[1] ?? '')
      .filter((file) => file.startsWith(all))
      .map((file) => basename(file));
  fs.mkdirSync(join(target, 'lib'));
  const libraries = needs('libvulkan_lvp.so');
  for (const name of [...libraries, 'libvulkan_lvp.so', 'libvulkan.so.1']) {
    fs.copyFileSync(join(all, name), join(target, 'lib', name));
  }
  // What depends on a library needs all that the library needs and more: the count is a topological order.
  const depth = new Map(libraries.map((name) => [name, needs(name).length]));
  return libraries.sort((a, b) => (depth.get(a) ?? 0) - (depth.get(b) ?? 0));
}

/** Makes the driver's folder in the cache and returns its path. */
function setup() {
  if (process.platform !== 'linux')
    throw new Error('lavapipe is for Linux; this system has its own WebGPU adapter');
  try {
    output('apt-get', ['--version']);
  } catch {
    throw new Error(
      'needs apt-get (Debian, Ubuntu); install the Vulkan software driver of your distribution instead',
    );
  }
  console.error('setup:lavapipe: downloading about 55 MB of Debian packages (no root needed)');
  const root = cacheRoot();
  const leftovers = fs.readdirSync(root).filter((name) => name.startsWith(WORK_PREFIX)); // of interrupted runs
  for (const name of leftovers) fs.rmSync(join(root, name), { recursive: true, force: true });
  const work = fs.mkdtempSync(join(root, WORK_PREFIX));
  try {
    const version = download(work);
    const ready = join(work, 'ready');
    fs.mkdirSync(ready);
    const libraries = collect(work, ready).map((name) => `lib/${name}`);
    const icd = {
      file_format_version: '1.0.0',
      ICD: { library_path: './lib/libvulkan_lvp.so', api_version: '1.3.0' },
    };
    fs.writeFileSync(join(ready, 'lvp_icd.json'), JSON.stringify(icd, null, 2));
    /** @type {import('../packages/tensor/src/node/software-driver.ts').LavapipeManifest} */
    const manifest = { version, icd: 'lvp_icd.json', libraries, loader: 'lib/libvulkan.so.1' };
    fs.writeFileSync(join(ready, 'manifest.json'), JSON.stringify(manifest, null, 2));
    const target = join(root, `lavapipe-${version}-${process.arch}`);
    fs.renameSync(ready, target); // whoever sees the folder sees all of it
    return target;
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/**
 * Runs `work` while this process alone holds the lock file.
 * @param {string} file
 * @param {() => void} work
 */
async function withLock(file, work) {
  for (;;) {
    try {
      fs.writeFileSync(file, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
      if (holderIsGone(file)) fs.rmSync(file, { force: true });
      else await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
  try {
    work();
  } finally {
    fs.rmSync(file, { force: true });
  }
}

/** @param {string} file */
function holderIsGone(file) {
  try {
    process.kill(Number(fs.readFileSync(file, 'utf8')), 0);
    return false;
  } catch (error) {
    // ENOENT: released meanwhile. EPERM: alive, another user's.
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'ESRCH';
  }
}

try {
  await withLock(join(cacheRoot(), 'lavapipe.lock'), () => {
    const before = cachedLavapipe();
    if (before) return console.error(`setup:lavapipe: already there: ${before.icdFile}`);
    console.error(`setup:lavapipe: ready: ${setup()}`);
  });
} catch (error) {
  const { message, stderr } = /** @type {Error & { stderr?: Buffer }} */ (error);
  const reason =
    String(stderr ?? '')
      .trim()
      .split('\n')
      .at(-1) || message.split('\n')[0];
  console.error(`setup:lavapipe: not possible here: ${reason}`);
  process.exitCode = 1;
}
