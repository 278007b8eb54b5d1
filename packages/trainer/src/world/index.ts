/** The procedural, captioned picture world: scenes, pictures, captions, novel subjects, and measurements from pixels. */

export { caption, describe, fullCaption, type Mentions, placePhrase } from './caption.ts';
export {
  instructionOf,
  instructionTokenOf,
  instructionVocabulary,
  instructionWords,
  maxInstructionWords,
  type PictureTask,
  picturesOnly,
  pictureTag,
  pictureTasks,
  tokenizeInstruction,
} from './instruction.ts';
export { agreement, type Measured, measure, promptFollowing } from './measure.ts';
export { type Colour, colours, type Rgb, rgbOf, shadeOf } from './palette.ts';
export { type Draws, draws } from './random.ts';
export { type Named, readCaption } from './reading.ts';
export {
  blankPicture,
  fromBytes,
  fromPlane,
  fromPlanes,
  type Layer,
  type Paint,
  type Picture,
  paintLayers,
  renderDepth,
  renderScene,
  sceneLayers,
  toBytes,
  toPlanes,
} from './render.ts';
export {
  type Badge,
  type Count,
  counts,
  elsewhere,
  type Pose,
  type Position,
  positions,
  type Scene,
  type Size,
  samplePose,
  sampleScene,
  sizes,
  type Texture,
  textures,
} from './scene.ts';
export { type Distance, distanceOf, type Shape, shapes } from './shapes.ts';
export { subjectSimilarity } from './similarity.ts';
export {
  type Style,
  type StyledScene,
  styledScenes,
  styleSimilarity,
  styles,
  styleWorlds,
  stylize,
} from './styles.ts';
export {
  type CaptionedSubject,
  drawingOf,
  heldOutPrompts,
  isSubject,
  renderSubject,
  type Subject,
  type SubjectPrompt,
  type SubjectScene,
  subjectCaption,
  subjects,
  trainingScenes,
} from './subjects.ts';
export { type Drawing, type Toy, toyCount, toyDrawing, toyName, toys } from './toys.ts';
export {
  maxTokens,
  subjectWords,
  type TaughtWords,
  tokenize,
  tokenOf,
  vocabulary,
  wordIds,
  wordsOf,
} from './vocabulary.ts';
