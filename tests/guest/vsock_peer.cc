// The guest's end of the socket device's tests and benchmark: serves AF_VSOCK connections on the
// port given, a thread each, as their first byte asks:
//   e  echoes until the end
//   b  takes bytes until the end and sends as many as the number on the first line says, at the
//      same time; last the checksum of what it took, 16 hexadecimal digits
//   c  connects to the host's port on the first line, says "from the guest", and passes back what
//      the host answers, or "error <errno>"
//   n  tells how many connections there are but this one
//   x  is killed by a signal
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/guest/vsock_pattern.h"

namespace {

using cube::testing::Checksum;
using cube::testing::FillPattern;

std::atomic<int> connections{0};

bool WriteAll(int fd, const void* bytes, size_t size) {
  const auto* next = static_cast<const char*>(bytes);
  while (size > 0) {
    ssize_t n = send(fd, next, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    next += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

bool WriteAll(int fd, const std::string& text) { return WriteAll(fd, text.data(), text.size()); }

uint64_t ReadNumber(int fd) {
  std::string line;
  char c;
  while (line.size() < 20 && read(fd, &c, 1) == 1 && c != '\n') line += c;
  return strtoull(line.c_str(), nullptr, 10);
}

void Echo(int fd) {
  std::vector<char> bytes(65536);
  for (;;) {
    ssize_t n = read(fd, bytes.data(), bytes.size());
    if (n <= 0 || !WriteAll(fd, bytes.data(), static_cast<size_t>(n))) return;
  }
}

struct Sending {
  int fd;
  uint64_t size;
};

void* SendPattern(void* argument) {
  const auto* sending = static_cast<const Sending*>(argument);
  std::vector<uint8_t> bytes(65536);
  for (uint64_t at = 0; at < sending->size; at += bytes.size()) {
    FillPattern(at, bytes);
    size_t size = std::min<uint64_t>(bytes.size(), sending->size - at);
    if (!WriteAll(sending->fd, bytes.data(), size)) break;
  }
  return nullptr;
}

void BothWays(int fd) {
  Sending sending = {fd, ReadNumber(fd)};
  pthread_t sender;
  if (pthread_create(&sender, nullptr, SendPattern, &sending) != 0) return;
  Checksum sum;
  std::vector<uint8_t> bytes(65536);
  ssize_t n;
  while ((n = read(fd, bytes.data(), bytes.size())) > 0) {
    sum.Add({bytes.data(), static_cast<size_t>(n)});
  }
  pthread_join(sender, nullptr);
  WriteAll(fd, sum.text());
}

void ConnectBack(int control) {
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_HOST;
  address.svm_port = static_cast<unsigned>(ReadNumber(control));
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
    WriteAll(control, "error " + std::to_string(errno));
  } else {
    WriteAll(fd, "from the guest");
    shutdown(fd, SHUT_WR);
    char bytes[4096];
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
      WriteAll(control, bytes, static_cast<size_t>(n));
    }
    if (n < 0) WriteAll(control, "error " + std::to_string(errno));
  }
  close(fd);
}

// A process that holds the connection and dies.
void BeKilled(int fd) {
  pid_t child = fork();
  if (child == 0) {
    WriteAll(fd, "dying");
    kill(getpid(), SIGKILL);
  }
  waitpid(child, nullptr, 0);
}

void* Serve(void* argument) {
  int fd = static_cast<int>(reinterpret_cast<intptr_t>(argument));
  ++connections;
  char mode = 0;
  if (read(fd, &mode, 1) == 1) {
    if (mode == 'e') Echo(fd);
    if (mode == 'b') BothWays(fd);
    if (mode == 'c') ConnectBack(fd);
    if (mode == 'n') WriteAll(fd, std::to_string(connections - 1));
    if (mode == 'x') BeKilled(fd);
  }
  close(fd);
  --connections;
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = static_cast<unsigned>(atoi(argv[1]));
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(listener, 128) < 0) {
    perror("vsock_peer");
    return 1;
  }
  printf("ready\n");
  fflush(stdout);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&detached, 256 * 1024);
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      perror("accept");
      return 1;
    }
    pthread_t thread;
    if (pthread_create(&thread, &detached, Serve, reinterpret_cast<void*>(intptr_t{fd})) != 0) {
      close(fd);
    }
  }
}
