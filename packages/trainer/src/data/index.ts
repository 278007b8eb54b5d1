/** Folders of captioned pictures. */
export { type FolderOptions, type ImageFolder, readImageFolder, type TrainingPicture } from './folder.ts';
export { decodeImage, decodePicture, imageFormat } from './imageFile.ts';
export { readTrainingData, type TrainingData } from './subsets.ts';
