export { loadPeftFolder, savePeftFolder } from './peftFolder.ts';
