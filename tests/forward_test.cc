// Servers in the guest that listen on localhost, as the host reaches them through the agent:
// HTTP/1.1 that keeps its connection, WebSocket, raw TCP, both ways at once, on a clone.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "tests/envd_sandbox.h"

namespace cube::testing {
namespace {

// HTTP/1.1 with connections that stay: GET says what was asked for, POST gives the body back as it
// comes, in chunks. A WebSocket (RFC 6455) gives each message back. Says its port.
constexpr char kServer[] = R"(
import base64, hashlib, http.server, struct, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def do_GET(self):
        if self.headers.get('Upgrade') == 'websocket': return self.serve_socket()
        body = f'{self.path} from {self.client_address[1]}'.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        left = int(self.headers['Content-Length'])
        while left:
            piece = self.rfile.read1(min(left, 65536))
            left -= len(piece)
            self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece))
        self.wfile.write(b'0\r\n\r\n')
    def serve_socket(self):
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101)
        self.send_header('Upgrade', 'websocket')
        self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            first, size = self.rfile.read(2)
            size &= 127
            if size == 126: size = struct.unpack('>H', self.rfile.read(2))[0]
            elif size == 127: size = struct.unpack('>Q', self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            data = self.rfile.read(size)
            whole = (mask * (size // 4 + 1))[:size]
            data = (int.from_bytes(data, 'big') ^ int.from_bytes(whole, 'big')).to_bytes(size, 'big')
            head = bytes([first, size]) if size < 126 else \
                bytes([first, 126]) + struct.pack('>H', size) if size < 65536 else \
                bytes([first, 127]) + struct.pack('>Q', size)
            self.wfile.write(head + data)
            if first == 0x88: return
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
)";

// Gives back what it gets, until that ends; then how much that was.
constexpr char kEcho[] = R"(
import socket
server = socket.create_server(('127.0.0.1', 0))
print(server.getsockname()[1], flush=True)
client, _ = server.accept()
total = 0
while piece := client.recv(65536):
    total += len(piece)
    client.sendall(piece)
client.sendall(b' %d' % total)
)";

// A message of a client, which has to mask it (RFC 6455 section 5.3).
std::string Frame(uint8_t first, const std::string& data) {
  std::string frame(1, static_cast<char>(first));
  const size_t size = data.size();
  const int bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
  frame += static_cast<char>(0x80 | (bytes == 0 ? size : bytes == 2 ? 126 : 127));
  for (int i = bytes - 1; i >= 0; --i) frame += static_cast<char>(size >> (8 * i));
  const std::string mask = "mask";
  frame += mask;
  for (size_t i = 0; i < size; ++i) frame += static_cast<char>(data[i] ^ mask[i % 4]);
  return frame;
}

// The next message of a server: its first byte, and its content.
std::string ReceiveFrame(const UniqueFd& fd) {
  const std::string head = ReceiveBytes(fd, 2);
  if (head.size() < 2) return "(the end)";
  size_t size = static_cast<uint8_t>(head[1]);
  if (size >= 126) {
    const std::string more = ReceiveBytes(fd, size == 126 ? 2 : 8);
    size = 0;
    for (char byte : more) size = size << 8 | static_cast<uint8_t>(byte);
  }
  return head[0] + ReceiveBytes(fd, size);
}

class ForwardTest : public EnvdSandboxTest {
 protected:
  // Starts a program of Python, whose first line is a port.
  int StartServer(const std::string& program) {
    const std::string file =
        "--B\r\nContent-Disposition: form-data; name=\"file\"; "
        "filename=\"/tmp/server.py\"\r\n\r\n" +
        program + "\r\n--B--\r\n";
    EXPECT_EQ(
        Request("POST", "/files", {{"Content-Type", "multipart/form-data; boundary=B"}}, &file)
            .status,
        200);
    int64_t pid;
    Client client = Start("exec python3 /tmp/server.py", &pid);
    Transcript all =
        ReadEvents(&client, [](const Transcript& so_far) { return so_far.out.ends_with('\n'); });
    EXPECT_NE(all.out, "") << all.err;
    return all.out.empty() ? 0 : std::stoi(all.out);
  }
  static std::string Random(size_t size) {
    std::mt19937_64 random(size);
    std::string data(size, '\0');
    for (char& byte : data) byte = static_cast<char>(random());
    return data;
  }
};

TEST_F(ForwardTest, HttpOnAConnectionThatStays) {
  const int port = StartServer(kServer);
  agent::http::TestClient client(ConnectForwarded(port));
  std::string from;
  for (const char* path : {"/one", "/two", "/three"}) {
    client.SendRequest("GET", path);
    Answer answer = client.ReadAnswer();
    ASSERT_EQ(answer.status, 200);
    const size_t space = answer.body.find(' ');
    EXPECT_EQ(answer.body.substr(0, space), path);
    if (from.empty()) from = answer.body.substr(space);
    EXPECT_EQ(answer.body.substr(space), from);  // the same connection in the guest
  }
}

TEST_F(ForwardTest, LargeBodiesStreamBothWays) {
  const int port = StartServer(kServer);
  UniqueFd fd = ConnectForwarded(port);
  ASSERT_TRUE(fd.valid());
  const std::string data = Random(24 << 20);
  const int raw = fd.get();
  agent::http::TestClient client(std::move(fd));
  // The answer comes while the body goes.
  std::thread sender([&] {
    UniqueFd same(dup(raw));
    EXPECT_TRUE(SendAll(same, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                                  std::to_string(data.size()) + "\r\n\r\n"));
    EXPECT_TRUE(SendAll(same, data));
  });
  Answer answer = client.ReadAnswer();
  sender.join();
  EXPECT_TRUE(answer.whole);
  EXPECT_TRUE(answer.body == data);
}

TEST_F(ForwardTest, AWebSocket) {
  const int port = StartServer(kServer);
  UniqueFd fd = ConnectForwarded(port);
  ASSERT_TRUE(fd.valid());
  // Key and answer are those of RFC 6455 section 1.3.
  EXPECT_TRUE(SendAll(fd,
                      "GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                      "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"));
  std::string head;
  while (!head.ends_with("\r\n\r\n")) {
    const std::string byte = ReceiveBytes(fd, 1);
    ASSERT_NE(byte, "") << head;
    head += byte;
  }
  EXPECT_TRUE(head.starts_with("HTTP/1.1 101 ")) << head;
  EXPECT_NE(head.find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), std::string::npos);
  for (size_t size : {size_t{5}, size_t{300}, size_t{70'000}, size_t{2} << 20}) {
    const std::string data = Random(size);
    ASSERT_TRUE(SendAll(fd, Frame(0x82, data)));
    EXPECT_TRUE(ReceiveFrame(fd) == '\x82' + data) << size;
  }
  // Several that are sent before the first has come back.
  ASSERT_TRUE(SendAll(fd, Frame(0x81, "one") + Frame(0x81, "two") + Frame(0x88, "")));
  EXPECT_EQ(ReceiveFrame(fd), "\x81one");
  EXPECT_EQ(ReceiveFrame(fd), "\x81two");
  EXPECT_EQ(ReceiveFrame(fd), "\x88");
  EXPECT_EQ(ReceiveBytes(fd, 1), "");
}

TEST_F(ForwardTest, RawBytesUntilOneSideHasNoMore) {
  const int port = StartServer(kEcho);
  UniqueFd fd = ConnectForwarded(port);
  ASSERT_TRUE(fd.valid());
  const std::string data = Random(16 << 20);
  std::thread sender([&] {
    EXPECT_TRUE(SendAll(fd, data));
    shutdown(fd.get(), SHUT_WR);
  });
  EXPECT_TRUE(ReceiveBytes(fd, data.size()) == data);
  sender.join();
  // What is said after the client's end comes as well.
  EXPECT_EQ(ReceiveBytes(fd, 100), " " + std::to_string(data.size()));
}

TEST_F(ForwardTest, APortThatNobodyListensAt) {
  std::string error;
  EXPECT_FALSE(ConnectForwarded(1, &error).valid());
  EXPECT_EQ(error, "ERROR port 1: Connection refused");
}

}  // namespace
}  // namespace cube::testing
