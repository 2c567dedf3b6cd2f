// An internet: a name server at 192.0.2.80, which has every name at that address, and web servers there
// and at 198.51.100.7, which say whom they were taken for. Says "ready".
import dgram from 'node:dgram'
import http from 'node:http'

const addresses = ['192.0.2.80', '198.51.100.7']
const dns = dgram.createSocket('udp4')
dns.on('message', (query, from) => {
  // The question is all that is asked; what EDNS has behind it is left out of the answer.
  let end = 12
  while (query[end] !== 0) end += query[end] + 1
  const question = query.subarray(12, end + 5)
  const isA = question.readUInt16BE(question.length - 4) === 1
  const head = Buffer.from([query[0], query[1], 0x81, 0x80, 0, 1, 0, isA ? 1 : 0, 0, 0, 0, 0])
  const answer = isA ? [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...addresses[0].split('.')] : []
  dns.send(Buffer.concat([head, question, Buffer.from(answer.map(Number))]), from.port, from.address)
})
const servers = addresses.map((address) => http.createServer((request, response) => {
  if (request.url === '/endless') {
    const more = () => { while (response.write(Buffer.alloc(65536))); }
    response.on('drain', more)
    more()
    return
  }
  response.end(`${address} ${request.headers.host}\n`)
}))
await new Promise((resolve) => dns.bind(53, addresses[0], resolve))
await Promise.all(servers.map((server, i) =>
  new Promise((resolve) => server.listen(80, addresses[i], resolve))))
console.log('ready')
