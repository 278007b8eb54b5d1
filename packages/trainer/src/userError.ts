/**
 * Exit statuses of the `deft` command for errors that the user can mend: 2 is bad usage or configuration, 3 too little memory,
 * 4 a training that diverged, 6 a disk that refuses, 1 any other.
 */
export type ExitStatus = 1 | 2 | 3 | 4 | 6;

/** The exit status after a device was lost, or a supervised job was started too often. */
export const deviceLostStatus = 5;

/**
 * Something that the user can mend: bad input, a folder that is not there, a disk that is full. The `deft` command
 * prints its message as it is, one line for each problem, without a stack.
 */
export class UserError extends Error {
  override readonly name = 'UserError';
  readonly exitStatus: ExitStatus;

  constructor(message: string, exitStatus: ExitStatus = 1, options?: ErrorOptions) {
    super(message, options);
    this.exitStatus = exitStatus;
  }
}
