import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { e2b, Node, until } from './node.mjs'

// An HTTP server for the guest: echoes, streams, sleeps, and upgrades.
const server = String.raw`
import hashlib, base64, http.server, socketserver, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def reply(self, body, **h):
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        for k, v in h.items(): self.send_header(k, v)
        self.end_headers(); self.wfile.write(body)
    def body(self):
        if self.headers.get('Transfer-Encoding') == 'chunked':
            data = b''
            while True:
                n = int(self.rfile.readline(), 16)
                part = self.rfile.read(n); self.rfile.readline(); data += part
                if n == 0: return data
        return self.rfile.read(int(self.headers.get('Content-Length', 0)))
    def do_GET(self):
        if self.path == '/headers': return self.reply(''.join('%s: %s\n' % x for x in self.headers.items()).encode())
        if self.path.startswith('/big/'):
            n = int(self.path[5:]); self.send_response(200); self.send_header('Content-Length', str(n)); self.end_headers()
            piece = b'x' * 65536
            while n > 0: self.wfile.write(piece[:min(n, 65536)]); n -= 65536
            return
        if self.path == '/stream':
            self.send_response(200); self.send_header('Transfer-Encoding', 'chunked'); self.end_headers()
            self.wfile.write(b'6\r\nfirst\n\r\n'); self.wfile.flush()
            open('/tmp/streaming', 'w').close()
            f = open('/tmp/go'); f.read(); f.close()
            self.wfile.write(b'7\r\nsecond\n\r\n0\r\n\r\n'); return
        if self.path == '/close':
            self.send_response(200); self.end_headers(); self.wfile.write(b'until the end'); self.close_connection = True; return
        if self.path == '/named':
            self.send_response(200); self.send_header('Connection', 'content-length, x-secret'); self.send_header('X-Secret', '1')
            self.send_header('Content-Length', '5'); self.end_headers(); self.wfile.write(b'named'); return
        if self.path == '/none':
            self.send_response(204); self.end_headers(); return
        if self.headers.get('Upgrade') == 'echo':
            self.send_response(101); self.send_header('Connection', 'Upgrade'); self.send_header('Upgrade', 'echo'); self.end_headers()
            while (data := self.connection.recv(4096)): self.connection.sendall(data.upper())
            self.close_connection = True; return
        self.reply(self.path.encode(), X_One='1')
    def do_HEAD(self):
        self.send_response(200); self.send_header('Content-Length', '12345'); self.end_headers()
    def do_POST(self):
        data = self.body()
        self.reply(hashlib.sha256(data).hexdigest().encode() + b' %d' % len(data))
    def do_PATCH(self):
        self.body()
        open('/tmp/waiting', 'w').close()
        gone = self.connection.recv(1) == b''
        open('/tmp/gone', 'w').write(str(gone)); self.close_connection = True
    def do_PUT(self):
        self.close_connection = True
        self.send_response(413); self.send_header('Content-Length', '0'); self.end_headers()
class S(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
S(('127.0.0.1', 8000), H).serve_forever()
`

let node, sandbox
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 2\n[api]\ndomain = "sandbox.test"\n' })
  sandbox = await node.create()
  await sandbox.files.write('/tmp/server.py', server)
  await sandbox.commands.run('mkfifo /tmp/go; exec python3 /tmp/server.py', { background: true, timeoutMs: 0 })
  await until(async () => (await get('/')).status === 200)
})
after(() => node.stop())
const get = (target, init) => node.fetchGuest(sandbox, 8000, target, init)
const text = async (target, init) => (await get(target, init)).text()

// What comes on a connection until it ends with `last`, or is at its end.
function read(socket, last) {
  let all = ''
  return new Promise((resolve, reject) => {
    const onData = (bytes) => {
      all += bytes.toString('latin1')
      if (last === undefined || !all.endsWith(last)) return
      socket.off('data', onData)
      resolve(all)
    }
    socket.on('data', onData).once('end', () => resolve(all)).once('error', reject)
  })
}
const head = (target, more = '', method = 'GET') =>
  `${method} ${target} HTTP/1.1\r\nHost: 8000-${sandbox.sandboxId}.sandbox.test\r\n${more}\r\n`

test('by the name of the host, and by the header', async () => {
  assert.equal(await text('/a?b=c%20d'), '/a?b=c%20d')
  const socket = await node.connect()
  socket.write(head('/by-name', 'E2b-Sandbox-Id: nobody\r\nE2b-Sandbox-Port: 1\r\nConnection: close\r\n'))
  assert.match(await read(socket), /^HTTP\/1.1 200 OK\r\n[^]*\r\n\r\n\/by-name$/)
  assert.equal(sandbox.getHost(8000), `8000-${sandbox.sandboxId}.sandbox.test`)
})

test('nobody there, no port open, no address', async () => {
  const gone = await node.fetchGuest({ sandboxId: 'nobody' }, 8000, '/')
  assert.equal(gone.status, 502)
  assert.deepEqual(await gone.json(), { sandboxId: 'nobody', message: 'The sandbox was not found', code: 502 })
  const closed = await node.fetchGuest(sandbox, 8001, '/')
  assert.equal(closed.status, 502)
  assert.deepEqual(await closed.json(), { sandboxId: sandbox.sandboxId,
    message: 'The sandbox is running but port is not open', port: 8001, code: 502 })
  for (const headers of [{ 'e2b-sandbox-id': 'x' }, { 'e2b-sandbox-port': '80' },
    { 'e2b-sandbox-id': 'x', 'e2b-sandbox-port': '0' }, { 'e2b-sandbox-id': 'x', 'e2b-sandbox-port': '65536' },
    { 'e2b-sandbox-id': '../x', 'e2b-sandbox-port': '80' }]) {
    assert.equal((await fetch(node.url, { headers })).status, 400)
  }
})

test('what the agent has for the node is not for clients', async () => {
  for (const target of ['/init', '/%69nit', '/freeze']) {
    const answer = await node.fetchGuest(sandbox, 49983, target, { method: 'POST', body: '{}',
      headers: { 'x-access-token': sandbox.envdAccessToken } })
    assert.equal(answer.status, 403, target)
  }
})

test('bodies of all kinds of framing, both ways', async () => {
  const body = Buffer.alloc(3 << 20, 'abcdefg')
  const hash = (await import('node:crypto')).createHash('sha256').update(body).digest('hex')
  assert.equal(await text('/', { method: 'POST', body }), `${hash} ${body.length}`)
  const stream = new ReadableStream({ start(c) { for (let i = 0; i < body.length; i += 65537) c.enqueue(body.subarray(i, i + 65537)); c.close() } })
  assert.equal(await text('/', { method: 'POST', body: stream, duplex: 'half' }), `${hash} ${body.length}`)
  assert.equal((await text('/', { method: 'POST', body: '' })).split(' ')[1], '0')
  assert.equal((await (await get('/big/50000000')).arrayBuffer()).byteLength, 50_000_000)
  assert.equal(await text('/close'), 'until the end')
  const none = await get('/none')
  assert.deepEqual([none.status, await none.text()], [204, ''])
  const onlyHead = await get('/', { method: 'HEAD' })
  assert.deepEqual([onlyHead.status, onlyHead.headers.get('content-length'), await onlyHead.text()], [200, '12345', ''])
})

test('requests one after another on one connection, and an answer before the end of a request', async () => {
  const socket = await node.connect()
  for (const each of ['/1', '/2', '/3']) {
    socket.write(head(each))
    assert.match(await read(socket, `\r\n\r\n${each}`), /^HTTP\/1.1 200 OK/)
  }
  socket.write(head('/4') + head('/5', 'Connection: close\r\n'))
  assert.match(await read(socket), /\/4HTTP\/1.1 200[^]*\/5$/)
  const early = await node.connect()
  early.write(head('/', 'Content-Length: 1000000\r\n', 'PUT') + 'x'.repeat(1000))
  assert.match(await read(early), /^HTTP\/1.1 413 /)
})

// Else the length would be left out, and the body be taken for another message by whoever comes next.
test('Connection names neither the length nor the host, whoever says it', async () => {
  const inner = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'
  const socket = await node.connect()
  socket.write(head('/', `Connection: content-length, host, x-mine\r\nX-Mine: 1\r\nContent-Length: ${inner.length}\r\n`, 'POST') + inner +
    head('/headers', 'Connection: close, Host, X-Mine\r\nX-Mine: 1\r\n'))
  const all = await read(socket)
  assert.equal(all.match(/HTTP\/1\.1 200/g).length, 2, all)
  assert.match(all, new RegExp(`^HTTP[^]*\r\n\r\n[0-9a-f]{64} ${inner.length}HTTP[^]*\nHost: 8000-`, 'i'))
  assert.ok(!/x-mine/i.test(all), all)
  const answers = await node.connect()
  answers.write(head('/named'))
  const named = await read(answers, 'named')
  assert.match(named, /\r\ncontent-length: 5\r\n/i)
  assert.ok(!/x-secret/i.test(named))
  answers.write(head('/after', 'Connection: close\r\n'))
  assert.match(await read(answers), /\r\n\r\n\/after$/)
})

test('a request with a body is not upgraded', async () => {
  const socket = await node.connect()
  socket.write(head('/upgrade', 'Connection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 10\r\n') + 'hello')
  assert.match(await read(socket, '/upgrade'), /^HTTP\/1.1 200 OK\r\n/)
  socket.destroy()
})

test('chunks are made anew: their extensions and trailers do not get through', async () => {
  const socket = await node.connect()
  socket.write(head('/', 'Transfer-Encoding: chunked\r\nTrailer: X-Late\r\nConnection: close\r\n', 'POST') +
    '3;name="a;b"\r\nabc\r\n00000002\r\nde\r\n0;last\r\nX-Late: 1\r\n\r\n')
  assert.match(await read(socket), / 5$/)
})

test('what a client expects before it sends', async () => {
  const socket = await node.connect()
  socket.write(head('/', 'Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n', 'POST'))
  const [bytes] = await once(socket, 'data')
  assert.equal(bytes.toString(), 'HTTP/1.1 100 Continue\r\n\r\n')
  socket.write('abc')
  assert.match(await read(socket), / 3$/)
})

test('a stream is passed on as it comes', async () => {
  const answer = await get('/stream')
  const reader = answer.body.getReader()
  assert.equal(Buffer.from((await reader.read()).value).toString(), 'first\n')
  await sandbox.commands.run('echo > /tmp/go')
  assert.equal(Buffer.from((await reader.read()).value).toString(), 'second\n')
  assert.equal((await reader.read()).done, true)
})

test('an upgraded connection, and its half closes', async () => {
  const socket = await node.connect()
  socket.allowHalfOpen = true
  socket.write(head('/', 'Connection: Upgrade\r\nUpgrade: echo\r\n') + 'early ')
  let all = ''
  socket.on('data', (bytes) => { all += bytes })
  await until(async () => { await new Promise(setImmediate); return all.includes('EARLY ') })
  assert.match(all, /^HTTP\/1.1 101 [^]*Upgrade: echo/i)
  socket.write('more')
  socket.end()
  await once(socket, 'end')
  assert.match(all, /EARLY MORE$/)
})

test('a client that leaves, and a sandbox that ends, end the other side', async () => {
  await sandbox.commands.run('rm -f /tmp/streaming')
  const controller = new AbortController()
  const answer = await get('/stream', { signal: controller.signal })
  await answer.body.getReader().read()
  controller.abort()
  const other = await node.create()
  const process = await other.commands.run('echo here; exec sleep 1000', { background: true, timeoutMs: 0 })
  await until(async () => { await new Promise(setImmediate); return process.stdout === 'here\n' })
  await other.kill()
  await assert.rejects(process.wait())
  await sandbox.commands.run('echo > /tmp/go')
  assert.equal(await text('/still'), '/still')
})

test('a client that leaves after its body, before there is an answer, is missed', async () => {
  const socket = await node.connect()
  socket.write(head('/', 'Content-Length: 4\r\n', 'PATCH') + 'body')
  await sandbox.commands.run('until [ -f /tmp/waiting ]; do sleep 0.02; done')
  socket.end()
  await sandbox.commands.run('until [ -s /tmp/gone ]; do sleep 0.02; done')
  assert.equal(await sandbox.files.read('/tmp/gone'), 'True')
})

test('back-pressure: a client that does not read holds the guest back, not the node', async () => {
  const socket = await node.connect()
  socket.pause()
  socket.write(head('/big/2000000000', 'Connection: close\r\n'))
  assert.equal(await text('/meanwhile'), '/meanwhile')
  const status = await readFile(`/proc/${node.pid}/status`, 'utf8')
  const kib = Number(/VmRSS:\s+(\d+)/.exec(status)[1])
  assert.ok(kib < 200_000, `${kib} KiB`)
  socket.destroy()
})

test('traffic tokens and the host that a server sees', async () => {
  const own = await node.create('base', { network: { allowPublicTraffic: false, maskRequestHost: 'inner.test:${PORT}' } })
  await own.files.write('/tmp/server.py', server)
  await own.commands.run('exec python3 /tmp/server.py', { background: true, timeoutMs: 0 })
  const ask = (headers) => node.fetchGuest(own, 8000, '/headers', { headers })
  const token = { 'e2b-traffic-access-token': own.trafficAccessToken }
  await until(async () => (await ask(token)).status === 200)
  assert.equal((await ask({})).status, 403)
  assert.equal((await ask({ 'e2b-traffic-access-token': 'wrong' })).status, 403)
  const seen = await (await ask(token)).text()
  assert.match(seen, /^host: inner.test:8000$/im)
  assert.ok(!seen.includes(own.trafficAccessToken))
  assert.equal((await own.commands.run('echo open')).stdout, 'open\n')
  await own.kill()
})

test('tokens of one sandbox open no other, however they are shown', async () => {
  const make = () => node.create('base', { network: { allowPublicTraffic: false } })
  const [mine, other] = await Promise.all([make(), make()])
  await other.files.write('/tmp/server.py', server)
  await other.commands.run('exec python3 /tmp/server.py', { background: true, timeoutMs: 0 })
  const traffic = (of) => ({ 'e2b-traffic-access-token': of.trafficAccessToken })
  await until(async () => (await node.fetchGuest(other, 8000, '/', { headers: traffic(other) })).status === 200)
  // A server's port, by HTTP and upgraded.
  for (const headers of [traffic(mine), {}, { 'e2b-traffic-access-token': other.envdAccessToken }]) {
    assert.equal((await node.fetchGuest(other, 8000, '/', { headers })).status, 403)
    const socket = await node.connect()
    socket.write(`GET / HTTP/1.1\r\nHost: 8000-${other.sandboxId}.sandbox.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n` +
      Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('') + '\r\n')
    assert.match(await read(socket, '}'), /^HTTP\/1\.1 403 /)
    socket.destroy()
  }
  // The agent's ports, by the header, and by another's name beside one's own.
  const own = { 'x-access-token': mine.envdAccessToken }
  for (const port of [49983, 49999]) {
    for (const headers of [own, { ...own, ...traffic(other) }, { 'x-access-token': mine.trafficAccessToken, ...traffic(other) }]) {
      const asked = port === 49983 ? ['/files?path=/tmp/server.py', {}] : ['/execute', { method: 'POST', body: '{"code":"1"}' }]
      const { status } = await node.fetchGuest(other, port, asked[0], { ...asked[1], headers })
      assert.equal(status, port === 49999 && headers === own ? 403 : 401, `${port} ${Object.keys(headers)}`)
    }
  }
  const named = await node.connect()
  named.write(`GET /files?path=/tmp/server.py HTTP/1.1\r\nHost: 49983-${other.sandboxId}.sandbox.test\r\nConnection: close\r\n` +
    `E2b-Sandbox-Id: ${mine.sandboxId}\r\nE2b-Sandbox-Port: 49983\r\nX-Access-Token: ${mine.envdAccessToken}\r\n\r\n`)
  assert.match(await read(named), /^HTTP\/1\.1 401 /)
  // Signatures: of one's own for another's files.
  await mine.files.write('/tmp/server.py', 'mine')
  const signed = await mine.downloadUrl('/tmp/server.py')
  assert.equal(await (await fetch(signed)).text(), 'mine')
  const elsewhere = { headers: { 'e2b-sandbox-id': other.sandboxId, 'e2b-sandbox-port': '49983' } }
  assert.equal((await fetch(signed, elsewhere)).status, 401)
  const form = new FormData()
  form.append('file', 'theirs')
  assert.equal((await fetch(await mine.uploadUrl('/tmp/server.py'), { method: 'POST', body: form, ...elsewhere })).status, 401)
  assert.equal((await other.files.read('/tmp/server.py')).length, server.length)
  for (const each of [mine, other]) await each.kill()
})

test('clients that vanish in the midst of uploads, downloads, streams and upgraded connections leave nothing', async () => {
  const open = async () => (await readdir(`/proc/${node.pid}/fd`)).length
  const before = await open()
  await sandbox.commands.run('rm -f /tmp/streaming')
  const kinds = [
    head('/', 'Content-Length: 1000000\r\n', 'POST') + 'x'.repeat(70_000),
    head('/', 'Transfer-Encoding: chunked\r\n', 'POST') + 'ffff\r\nxxx',
    head('/big/300000000'),
    head('/', 'Connection: Upgrade\r\nUpgrade: echo\r\n') + 'said',
    `POST /files?path=/tmp/never HTTP/1.1\r\nHost: 49983-${sandbox.sandboxId}.sandbox.test\r\n` +
      `X-Access-Token: ${sandbox.envdAccessToken}\r\nContent-Type: application/octet-stream\r\nContent-Length: 9000000\r\n\r\n` + 'y'.repeat(100_000),
  ]
  for (let round = 0; round < 4; ++round) {
    const sockets = await Promise.all([...kinds, ...kinds].map(async (bytes) => {
      const socket = await node.connect()
      socket.on('error', () => {})
      await new Promise((resolve) => socket.write(bytes, resolve))
      // Half of them once something has come back.
      if (round % 2 === 1 && /big|Upgrade/.test(bytes)) await once(socket, 'data')
      return socket
    }))
    sockets.forEach((socket, i) => i % 2 === 0 ? socket.resetAndDestroy() : socket.destroy())
  }
  assert.equal(await text('/after'), '/after')
  await until(async () => await open() <= before)
  assert.equal((await sandbox.commands.run('echo on')).stdout, 'on\n')
})

test('signed URLs find their sandbox', async () => {
  await sandbox.files.write('signed', 'content')
  const url = await sandbox.downloadUrl('signed', { useSignatureExpiration: 600 })
  assert.equal(await (await fetch(url)).text(), 'content')
  assert.equal((await fetch(url.replace('=signed', '=other'))).status, 401)
  const form = new FormData()
  form.append('file', 'uploaded')
  assert.equal((await fetch(await sandbox.uploadUrl('up'), { method: 'POST', body: form })).status, 200)
  assert.equal(await sandbox.files.read('up'), 'uploaded')
})

test('a terminal', async () => {
  let seen = ''
  const pty = await sandbox.pty.create({ cols: 80, rows: 24, onData: (bytes) => { seen += Buffer.from(bytes) } })
  await sandbox.pty.sendInput(pty.pid, Buffer.from('stty size; exit\n'))
  await pty.wait()
  assert.match(seen, /24 80/)
})

test('many at once', async () => {
  const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => text(`/${i}`)))
  assert.deepEqual(answers, Array.from({ length: 100 }, (_, i) => `/${i}`))
})
