// The way from the client library to a sandbox's ports: an HTTP server of this machine that goes by the
// header E2b-Sandbox-Port to that port of the guest, by the VMM's vsock socket.
import http from 'node:http';
import net from 'node:net';

// A connection to a port of the guest.
function connect(vsock, port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(vsock, () => socket.write(`CONNECT ${port}\n`));
    socket.once('error', reject);
    let line = '';
    const onData = (data) => {
      line += data.toString('latin1');
      if (!line.includes('\n')) return;
      socket.off('data', onData);  // the guest says nothing before it is asked
      if (line.startsWith('OK ')) resolve(socket);
      else reject(new Error(`vsock port ${port}: ${line}`));
    };
    socket.on('data', onData);
    socket.once('close', () => reject(new Error(`vsock port ${port} is not open`)));
  });
}

// Listens on a port of its own; `url` is where.
export async function startEdge(vsock) {
  const server = http.createServer(async (request, response) => {
    let socket;
    try {
      socket = await connect(vsock, request.headers['e2b-sandbox-port']);
    } catch (error) {
      response.writeHead(502, { 'Content-Type': 'application/json' });
      response.end(JSON.stringify({ message: error.message, code: 502 }));
      return;
    }
    const upstream = http.request({
      createConnection: () => socket, method: request.method, path: request.url,
      headers: { ...request.headers, connection: 'close' },
    }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    upstream.on('error', () => response.destroy());
    response.on('close', () => socket.destroy());
    request.pipe(upstream);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}
