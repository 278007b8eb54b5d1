// Writes the training pictures of a subject of the picture world, with their captions, to examples/data/SUBJECT/:
//   npx tsx --conditions=@deftjs/source examples/make-pictures.ts robot
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { renderSubject, subjects, toBytes, trainingScenes } from '@deftjs/trainer';
import sharp from 'sharp';

const subject = subjects.find((name) => name === process.argv[2]);
if (subject === undefined) throw new Error(`expected one of ${subjects.join(', ')}; got ${process.argv[2]}`);

const folder = fileURLToPath(new URL(`data/${subject}/`, import.meta.url));
mkdirSync(folder, { recursive: true });
for (const [index, { scene, caption }] of trainingScenes(subject).entries()) {
  const picture = renderSubject(scene);
  const { width, height } = picture;
  const png = sharp(toBytes(picture), { raw: { width, height, channels: 3 } }).png();
  writeFileSync(`${folder}${index + 1}.png`, await png.toBuffer());
  writeFileSync(`${folder}${index + 1}.txt`, `${caption}\n`);
}
