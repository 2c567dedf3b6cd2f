// A sandbox for tests: a clone of the root disk $CUBE_ROOTFS, as the client library sees it.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startEdge } from './edge.mjs';

// Starts a clone (the first one of a disk is preceded by its template's boot) and gives a sandbox of
// `Sandbox`, the client library's class, and how to end it.
export async function startSandbox(Sandbox) {
  const folder = mkdtempSync(path.join(tmpdir(), 'cube-e2b-'));
  const vsock = path.join(folder, 'vsock');
  const { CUBE_VMM, CUBE_KERNEL, CUBE_INITRD, CUBE_ROOTFS } = process.env;
  const vmm = spawn(CUBE_VMM, [
    'run', '--kernel', CUBE_KERNEL, '--initrd', CUBE_INITRD, '--rootfs', CUBE_ROOTFS, '--memory', '512',
    '--vsock', vsock, '--', '/bin/sh', '-c', 'echo up; exec cat'],
                    { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => vmm.on('exit', resolve));
  await Promise.race([
    new Promise((resolve) => vmm.stdout.once('data', resolve)),
    ended.then((status) => { throw new Error(`cube-vmm ended with ${status}`); }),
  ]);
  const edge = await startEdge(vsock);
  const sandbox = new Sandbox({
    sandboxId: 'test', envdVersion: '0.6.13', sandboxUrl: edge.url, apiKey: 'e2b_0', debug: false,
  });
  return {
    sandbox,
    async stop() {
      edge.close();
      vmm.stdin.end();
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
