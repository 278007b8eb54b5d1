/** Folders of captioned pictures. */
export { bucketSizes, nearestSize, type PictureSize, sizeInWords } from './buckets.ts';
export { readSidecar } from './captions.ts';
export {
  type FolderOptions,
  type ImageFolder,
  isImageName,
  readImageFolder,
  type TrainingPicture,
} from './folder.ts';
export { decodeImage, decodePicture, decodeWhole, imageFormat, type Planes } from './imageFile.ts';
export { readTrainingData, type TrainingData } from './subsets.ts';
