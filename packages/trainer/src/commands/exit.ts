/** Ends a command with an exit status of its own and no message, such as 130 after Ctrl-C. */
export class Exit extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`exit ${status}`);
    this.status = status;
  }
}
