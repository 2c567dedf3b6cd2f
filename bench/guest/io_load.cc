// Load on a disk or a network, run in a guest by bench/blk.py and bench/net.py.
//
//   io_load blk DEVICE SECONDS            requests of 4 and 128 KiB, past the guest's page cache
//   io_load net OWN PEER SECONDS          eth0 gets the address OWN/24; PEER runs the services
//   below
//
// Each load is announced by "load NAME begin" and ended by "load NAME end REQUESTS SECONDS"; the
// host takes its own times at these lines, so nothing else happens near them. Linked statically.

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kSmall = 4096;
constexpr size_t kLarge = 128 << 10;
constexpr size_t kMessage = 64;
constexpr int kAtOnce = 16;
constexpr useconds_t kQuiet = 100000;

// The peer's services (bench/net.py).
constexpr uint16_t kUdpEcho = 7001, kTcpEcho = 7002, kTcpSink = 7003, kTcpSource = 7004;

void Check(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  fflush(stderr);
  _exit(1);
}

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Carries one request out. `round` counts a thread's requests.
using Step = std::function<void(uint32_t round)>;

// Lets each of `steps` run in a thread of its own for `seconds`.
void Load(const char* name, double seconds, const std::vector<Step>& steps) {
  for (const Step& step : steps) step(0);  // first faults and the like
  usleep(kQuiet);
  printf("load %s begin\n", name);
  fflush(stdout);
  usleep(kQuiet);
  double start = Now(), end = start + seconds;
  std::vector<uint64_t> counts(steps.size());
  auto run = [&](size_t i) {
    uint64_t count = 0;
    for (; Now() < end; ++count) steps[i](static_cast<uint32_t>(count + 1));
    counts[i] = count;
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < steps.size(); ++i) threads.emplace_back(run, i);
  run(0);
  for (std::thread& thread : threads) thread.join();
  double took = Now() - start;
  uint64_t total = 0;
  for (uint64_t count : counts) total += count;
  printf("load %s end %llu %.6f\n", name, static_cast<unsigned long long>(total), took);
  fflush(stdout);
  usleep(kQuiet);
}

volatile uint64_t g_sink;

// What a program might do with its data: FNV-1a, byte by byte.
void Digest(const uint8_t* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ data[i]) * 0x100000001b3;
  g_sink = hash;
}

// ---- disk

class DiskLoad {
 public:
  DiskLoad(const char* path, double seconds) : seconds_(seconds) {
    fd_ = open(path, O_RDWR | O_DIRECT);
    Check(fd_ >= 0, path);
    size_ = lseek(fd_, 0, SEEK_END);
    Check(size_ >= static_cast<off_t>(kAtOnce * kLarge), "size of the disk");
  }

  void Run() {
    Load("random-read-4k", seconds_, {Random(false, 1)});
    Load("random-read-4k-x16", seconds_, Several(false));
    Load("random-write-4k", seconds_, {Random(true, 1)});
    Load("random-write-4k-x16", seconds_, Several(true));
    Load("sequential-read-128k", seconds_, {Sequential(false, false)});
    Load("sequential-write-128k", seconds_, {Sequential(true, false)});
    Load("read-128k-and-digest", seconds_, {Sequential(false, true)});
  }

 private:
  static std::shared_ptr<uint8_t> Buffer(size_t size) {
    void* at = nullptr;
    Check(posix_memalign(&at, kSmall, size) == 0, "memory");
    memset(at, 0x5a, size);
    return {static_cast<uint8_t*>(at), free};
  }

  void Transfer(bool write, uint8_t* buffer, size_t size, off_t offset) const {
    ssize_t n = write ? pwrite(fd_, buffer, size, offset) : pread(fd_, buffer, size, offset);
    Check(n == static_cast<ssize_t>(size), write ? "write" : "read");
  }

  Step Random(bool write, uint32_t seed) const {
    auto state = std::make_shared<uint32_t>(seed * 2654435761u);
    auto buffer = Buffer(kSmall);
    return [this, write, state, buffer](uint32_t) {
      *state = *state * 1664525 + 1013904223;
      off_t block = (*state >> 8) % (static_cast<uint64_t>(size_) / kSmall);
      Transfer(write, buffer.get(), kSmall, block * static_cast<off_t>(kSmall));
    };
  }

  std::vector<Step> Several(bool write) const {
    std::vector<Step> steps;
    for (int i = 0; i < kAtOnce; ++i) steps.push_back(Random(write, static_cast<uint32_t>(i + 2)));
    return steps;
  }

  Step Sequential(bool write, bool digest) const {
    auto buffer = Buffer(kLarge);
    return [this, write, digest, buffer](uint32_t round) {
      auto pieces = static_cast<uint32_t>(static_cast<size_t>(size_) / kLarge);
      Transfer(write, buffer.get(), kLarge, off_t{round % pieces} * static_cast<off_t>(kLarge));
      if (digest) Digest(buffer.get(), kLarge);
    };
  }

  double seconds_;
  int fd_;
  off_t size_;
};

// ---- network

sockaddr_in Address(const char* text, uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  Check(inet_pton(AF_INET, text, &address.sin_addr) == 1, text);
  return address;
}

void SetUp(const char* own) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  ifreq request = {};
  strcpy(request.ifr_name, "eth0");
  sockaddr_in address = Address(own, 0);
  memcpy(&request.ifr_addr, &address, sizeof address);
  Check(ioctl(fd, SIOCSIFADDR, &request) == 0, "address");
  address = Address("255.255.255.0", 0);
  memcpy(&request.ifr_netmask, &address, sizeof address);
  Check(ioctl(fd, SIOCSIFNETMASK, &request) == 0, "netmask");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  Check(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "eth0 up");
  close(fd);
}

int Connect(int type, const char* peer, uint16_t port) {
  int fd = socket(AF_INET, type, 0);
  sockaddr_in address = Address(peer, port);
  Check(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "connect");
  int on = 1;
  if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  timeval limit = {2, 0};  // a datagram may be lost
  if (type == SOCK_DGRAM) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return fd;
}

Step Echo(int type, const char* peer, uint16_t port) {
  int fd = Connect(type, peer, port);
  return [fd, type](uint32_t) {
    char message[kMessage] = {1};
    Check(send(fd, message, sizeof message, 0) == sizeof message, "send");
    ssize_t n = recv(fd, message, sizeof message, type == SOCK_STREAM ? MSG_WAITALL : 0);
    Check(n == sizeof message || type == SOCK_DGRAM, "receive");
  };
}

// 128 KiB a request, so that blk and net can be compared.
Step Bulk(int fd, bool to_peer, bool digest) {
  auto buffer = std::make_shared<std::vector<uint8_t>>(kLarge, 0x5a);
  return [fd, to_peer, digest, buffer](uint32_t) {
    size_t done = 0;
    while (done < kLarge) {
      ssize_t n = to_peer ? send(fd, buffer->data() + done, kLarge - done, 0)
                          : recv(fd, buffer->data() + done, kLarge - done, MSG_WAITALL);
      Check(n > 0, "stream");
      done += static_cast<size_t>(n);
    }
    if (digest) Digest(buffer->data(), kLarge);
  };
}

void RunNetwork(const char* own, const char* peer, double seconds) {
  SetUp(own);
  Load("udp-echo-64", seconds, {Echo(SOCK_DGRAM, peer, kUdpEcho)});
  std::vector<Step> several;
  for (int i = 0; i < kAtOnce; ++i) several.push_back(Echo(SOCK_DGRAM, peer, kUdpEcho));
  Load("udp-echo-64-x16", seconds, several);
  Load("tcp-echo-64", seconds, {Echo(SOCK_STREAM, peer, kTcpEcho)});
  int sink = Connect(SOCK_STREAM, peer, kTcpSink);
  Load("tcp-send-128k", seconds, {Bulk(sink, true, false)});
  close(sink);
  for (bool digest : {false, true}) {
    int source = Connect(SOCK_STREAM, peer, kTcpSource);
    Load(digest ? "tcp-receive-128k-and-digest" : "tcp-receive-128k", seconds,
         {Bulk(source, false, digest)});
    close(source);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "blk") == 0) {
    DiskLoad(argv[2], atof(argv[3])).Run();
  } else if (argc == 5 && strcmp(argv[1], "net") == 0) {
    RunNetwork(argv[2], argv[3], atof(argv[4]));
  } else {
    fprintf(stderr, "usage: io_load blk DEVICE SECONDS | net OWN PEER SECONDS\n");
    return 2;
  }
  printf("load all done\n");
  return 0;
}
