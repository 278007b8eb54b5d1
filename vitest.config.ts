import { defineConfig } from 'vitest/config';

// Workspace packages resolve to their TypeScript source: no build before a test run.
const conditions = ['@deftjs/source'];
const globalSetup = ['tests/support/adapter-setup.ts'];

export default defineConfig({
  resolve: { conditions },
  ssr: {
    // Workspace links must pass through Vite, which strips types; everything else is loaded by Node itself.
    noExternal: [/^@deftjs\//],
    resolve: { conditions, externalConditions: conditions },
  },
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Small tensors test the kernels of the device that a test opens; tests/tensor/companion.test.ts opens its own.
    env: { DEFT_COMPANION: 'off' },
    projects: [
      {
        extends: true,
        test: {
          name: 'main',
          globalSetup,
          include: ['tests/**/*.test.ts'],
          exclude: ['tests/smoke/**', 'tests/scale/**', 'tests/kill/**'],
        },
      },
      {
        // Gigabytes and minutes: npm run test:scale.
        extends: true,
        test: { name: 'scale', globalSetup, include: ['tests/scale/**/*.test.ts'], testTimeout: 600_000 },
      },
      {
        // Thousands of processes: npm run test:kill.
        extends: true,
        test: { name: 'kill', include: ['tests/kill/**/*.test.ts'] },
      },
      {
        // The same WGSL on a second implementation of Vulkan.
        extends: true,
        test: {
          name: 'smoke',
          globalSetup,
          include: ['tests/smoke/**/*.test.ts'],
          env: { DEFT_ADAPTER: 'swiftshader' },
        },
      },
    ],
  },
});
