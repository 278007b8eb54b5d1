/**
 * A plan as a tape: phases in the order they run, which all threads walk together.
 *
 * A record of the tape is five words: function, chunks, address of the arguments, chunks taken so far, and whether to
 * wait for the other threads first. Threads take chunks from the counter and meet at a barrier before the next record
 * that needs what came before.
 */
import { FunctionBuilder, type Local, type ModuleBuilder } from './assembler.ts';
import { forRange } from './loops.ts';

export const recordWords = 5;
/** Words of the control block: threads that have arrived at the barrier, barriers passed, whether a thread failed. */
export const control = { arrived: 0, passed: 4, failed: 8, bytes: 64 } as const;

/** Times that a barrier looks before it sleeps: about 20 microseconds. */
const spins = 10_000;

/** Exports "main" (records, end of records, control block, threads, scratch of this thread, may sleep). */
export function writeMain(module: ModuleBuilder, mayWait: boolean): void {
  const fn = new FunctionBuilder(['i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [record, end, block, threads, scratch, canSleep] = [0, 1, 2, 3, 4, 5];
  const { body } = fn;
  const kernel = module.type(['i32', 'i32', 'i32']);
  const [chunk, ticket, tries] = [fn.local('i32'), fn.local('i32'), fn.local('i32')];
  const barrier = () => writeBarrier(fn, { block, threads, canSleep, ticket, tries }, mayWait);
  body.get(block).op('i32.atomic.load', control.passed).set(ticket);
  forRange(body, record, end, 4 * recordWords, () => {
    body.get(record).op('i32.load', 16).if(barrier);
    body.block(() => {
      body.loop(() => {
        body.get(record).i32(1).op('i32.atomic.rmw.add', 12).tee(chunk);
        body.get(record).op('i32.load', 4).op('i32.ge_u').op('br_if', 1);
        body
          .get(record)
          .op('i32.load', 8)
          .get(chunk, scratch)
          .get(record)
          .op('i32.load', 0)
          .callIndirect(kernel);
        body.op('br', 0);
      });
    });
  });
  barrier();
  module.export('main', module.add(fn));
}

interface BarrierLocals {
  readonly block: Local;
  readonly threads: Local;
  readonly canSleep: Local;
  /** Barriers passed when this thread arrives. */
  readonly ticket: Local;
  readonly tries: Local;
}

/**
 * The last thread to arrive counts the barrier as passed. The others watch that count, first awake, then asleep
 * (where the thread may sleep), and trap when a thread has failed, since it will never arrive.
 */
function writeBarrier(fn: FunctionBuilder, locals: BarrierLocals, mayWait: boolean): void {
  const { body } = fn;
  const { block, threads, canSleep, ticket, tries } = locals;
  body
    .get(block)
    .i32(1)
    .op('i32.atomic.rmw.add', control.arrived)
    .i32(1)
    .op('i32.add')
    .get(threads)
    .op('i32.eq');
  body.if(
    () => {
      body.get(block).i32(0).op('i32.atomic.store', control.arrived);
      body.get(block).get(ticket).i32(1).op('i32.add').op('i32.atomic.store', control.passed);
      if (mayWait) {
        body.get(block).i32(-1).op('memory.atomic.notify', control.passed).op('drop');
      }
    },
    () => {
      body.i32(0).set(tries);
      body.block(() => {
        body.loop(() => {
          body.get(block).op('i32.atomic.load', control.passed).get(ticket).op('i32.ne').op('br_if', 1);
          body
            .get(block)
            .op('i32.atomic.load', control.failed)
            .if(() => body.op('unreachable'));
          body.get(tries).i32(1).op('i32.add').set(tries);
          if (mayWait) {
            body
              .get(tries)
              .i32(spins)
              .op('i32.gt_u')
              .get(canSleep)
              .op('i32.and')
              .if(() => {
                // Sleeps for 0.1 s at most, to notice a failure.
                body
                  .get(block, ticket)
                  .i64(100_000_000n)
                  .op('memory.atomic.wait32', control.passed)
                  .op('drop');
              });
          }
          body.op('br', 0);
        });
      });
    },
  );
  body.get(ticket).i32(1).op('i32.add').set(ticket);
}
