// What a program waits for: epoll, timerfd, eventfd, signalfd, and sockets with checksums of what
// goes through them.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

void Watch(int epoll, int fd, uint32_t events, int operation = EPOLL_CTL_ADD) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = fd;
  Must(epoll_ctl(epoll, operation, fd, &event) == 0, "epoll_ctl");
}

// The one descriptor that is ready, -1 if none is.
int Ready(int epoll, int timeout, uint32_t* events = nullptr) {
  epoll_event event = {};
  int count;
  do {
    count = epoll_wait(epoll, &event, 1, timeout);
  } while (count < 0 && errno == EINTR);
  Must(count >= 0, "epoll_wait");
  if (events != nullptr) *events = event.events;
  return count == 0 ? -1 : event.data.fd;
}

uint64_t ReadCounter(int fd) {
  uint64_t value = 0;
  Must(read(fd, &value, sizeof value) == sizeof value, "read a counter");
  return value;
}

void WriteCounter(int fd, uint64_t value) {
  Must(write(fd, &value, sizeof value) == sizeof value, "write a counter");
}

// Level, edge and one shot, and an epoll within an epoll.
void EpollModes(Run& run) {
  int epoll = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(EPOLL_CLOEXEC);
  int event = eventfd(0, EFD_NONBLOCK);
  Must(epoll >= 0 && outer >= 0 && event >= 0, "epoll_create1");
  Watch(outer, epoll, EPOLLIN);
  for (uint32_t mode : {0u, static_cast<uint32_t>(EPOLLET), static_cast<uint32_t>(EPOLLONESHOT)}) {
    Watch(epoll, event, EPOLLIN | mode);
    if (Ready(outer, 0) != -1) Fail("ready before anything was written");
    WriteCounter(event, 3);
    if (Ready(outer, -1) != epoll || Ready(epoll, -1) != event) Fail("mode %#x: not ready", mode);
    bool again = Ready(epoll, 0) == event;
    if (again != (mode == 0)) Fail("mode %#x: a second time %d", mode, again);
    WriteCounter(event, 4);
    again = Ready(epoll, 0) == event;
    if (again != (mode != EPOLLONESHOT)) Fail("mode %#x: after another %d", mode, again);
    Watch(epoll, event, EPOLLIN | mode, EPOLL_CTL_MOD);
    if (Ready(epoll, 0) != event) Fail("mode %#x: not after it was armed again", mode);
    run.Add(ReadCounter(event));
    Must(epoll_ctl(epoll, EPOLL_CTL_DEL, event, nullptr) == 0, "EPOLL_CTL_DEL");
    if (Ready(epoll, 0) != -1) Fail("ready after it was removed");
  }
  for (int fd : {epoll, outer, event}) close(fd);
}

// Children feed an eventfd, a pipe and a signalfd, a timer ticks; one loop takes all.
void Events(Run& run) {
  constexpr int kChildren = 4;
  for (uint64_t round = 0; round < run.rounds; ++round) {
    EpollModes(run);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 1);
    Must(sigprocmask(SIG_BLOCK, &mask, nullptr) == 0, "sigprocmask");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int signals = signalfd(-1, &mask, SFD_NONBLOCK);
    int count = eventfd(0, EFD_NONBLOCK), semaphore = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int ends[2];
    Must(pipe2(ends, O_NONBLOCK) == 0, "pipe2");
    for (int fd : {signals, count, semaphore, timer, ends[0]}) Watch(epoll, fd, EPOLLIN);
    itimerspec every = {{0, 2000000}, {0, 1}};
    Must(timerfd_settime(timer, 0, &every, nullptr) == 0, "timerfd_settime");
    pid_t parent = getpid(), children[kChildren];
    for (int i = 0; i < kChildren; ++i) {
      children[i] = Fork([&] {
        for (int j = 1; j <= 25; ++j) {
          WriteCounter(count, static_cast<uint64_t>(j));
          WriteCounter(semaphore, 2);
          uint32_t word = static_cast<uint32_t>(i * 1000 + j);
          Must(write(ends[1], &word, sizeof word) == sizeof word, "write");
          sigval value;
          value.sival_int = i * 1000 + j;
          Must(sigqueue(parent, SIGRTMIN + 1, value) == 0, "sigqueue");
        }
      });
    }
    uint64_t counted = 0, taken = 0, piped = 0, signalled = 0, signal_sum = 0, ticked = 0;
    while (counted < kChildren * 325 || taken < kChildren * 50 || piped < kChildren * 25 ||
           signalled < kChildren * 25 || ticked < 5) {
      int fd = Ready(epoll, -1);
      if (fd == count) {
        counted += ReadCounter(count);
      } else if (fd == semaphore) {
        uint64_t one = ReadCounter(semaphore);
        if (one != 1) Fail("a semaphore gave %llu", (unsigned long long)one);
        ++taken;
      } else if (fd == timer) {
        ticked += ReadCounter(timer);
      } else if (fd == ends[0]) {
        uint32_t word;
        Must(read(fd, &word, sizeof word) == sizeof word, "read");
        run.sum += word;
        ++piped;
      } else if (fd == signals) {
        signalfd_siginfo info;
        Must(read(fd, &info, sizeof info) == sizeof info, "read a signal");
        signal_sum += static_cast<uint64_t>(info.ssi_int);
        ++signalled;
      }
    }
    uint64_t wanted = 0;
    for (uint64_t i = 0; i < kChildren; ++i) wanted += i * 25000 + 325;
    if (signal_sum != wanted)
      Fail("the signals' values add up to %llu", (unsigned long long)signal_sum);
    run.Add(counted + taken + piped + signalled);
    for (pid_t child : children) Join(child);
    for (int fd : {epoll, signals, count, semaphore, timer, ends[0], ends[1]}) close(fd);
    Must(sigprocmask(SIG_UNBLOCK, &mask, nullptr) == 0, "sigprocmask");
  }
}

// ---- sockets

uint64_t Hash(uint64_t sum, const uint8_t* data, size_t size) {
  for (size_t i = 0; i < size; ++i) sum = (sum ^ data[i]) * 0x100000001b3;
  return sum;
}

void SendAll(int fd, const uint8_t* data, size_t size) {
  while (size > 0) {
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    Must(sent > 0, "send");
    data += sent;
    size -= static_cast<size_t>(sent);
  }
}

// Sends `total` bytes of `random` in chunks of all sizes, ends its direction, and returns their
// hash.
uint64_t SendStream(int fd, Random random, size_t total) {
  std::vector<uint8_t> chunk(20000);
  uint64_t sum = 0;
  while (total > 0) {
    size_t size = std::min<size_t>(total, 1 + random.Below(chunk.size()));
    for (size_t i = 0; i < size; ++i) chunk[i] = static_cast<uint8_t>(random.Next() >> 20);
    sum = Hash(sum, chunk.data(), size);
    SendAll(fd, chunk.data(), size);
    total -= size;
  }
  Must(shutdown(fd, SHUT_WR) == 0, "shutdown");
  return sum;
}

uint64_t ReceiveStream(int fd, size_t* total) {
  std::vector<uint8_t> chunk(9000);
  uint64_t sum = 0;
  *total = 0;
  while (true) {
    ssize_t got = recv(fd, chunk.data(), chunk.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    Must(got >= 0, "recv");
    if (got == 0) return sum;
    sum = Hash(sum, chunk.data(), static_cast<size_t>(got));
    *total += static_cast<size_t>(got);
  }
}

// A child echoes what it gets back while more is coming; both directions must arrive whole.
void EchoThrough(Run& run, int mine, int its, size_t total) {
  uint64_t seed = run.random.Next();
  pid_t echo = Fork([&] {
    close(mine);
    uint8_t buffer[5000];
    while (true) {
      ssize_t got = recv(its, buffer, sizeof buffer, 0);
      Must(got >= 0, "recv");
      if (got == 0) break;
      SendAll(its, buffer, static_cast<size_t>(got));
    }
    Must(shutdown(its, SHUT_WR) == 0, "shutdown");
  });
  close(its);
  int report[2];
  Must(pipe(report) == 0, "pipe");
  pid_t sender = Fork([&] {
    uint64_t sum = SendStream(mine, Random(seed), total);
    Must(write(report[1], &sum, sizeof sum) == sizeof sum, "write");
  });
  size_t got = 0;
  uint64_t sum = ReceiveStream(mine, &got), sent = 0;
  Must(read(report[0], &sent, sizeof sent) == sizeof sent, "read");
  if (got != total || sum != sent) Fail("%zu of %zu bytes came back, or others", got, total);
  run.Add(sum);
  Join(sender);
  Join(echo);
  for (int fd : {mine, report[0], report[1]}) close(fd);
}

// A descriptor travels through a socket, and leads to the same file.
void PassDescriptor(Run& run) {
  int pair[2], ends[2];
  Must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0, "socketpair");
  Must(pipe(ends) == 0, "pipe");
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
  auto* header = reinterpret_cast<cmsghdr*>(control);
  uint64_t value = run.random.Next();
  iovec data = {&value, sizeof value};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  pid_t child = Fork([&] {
    Must(recvmsg(pair[1], &message, 0) == sizeof value, "recvmsg");
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    Must(write(fd, &value, sizeof value) == sizeof value, "write");
  });
  header->cmsg_len = CMSG_LEN(sizeof(int));
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
  Must(sendmsg(pair[0], &message, 0) == sizeof value, "sendmsg");
  close(ends[1]);
  uint64_t got = 0;
  Must(read(ends[0], &got, sizeof got) == sizeof got, "read");
  if (got != value) Fail("another value came through the passed descriptor");
  Join(child);
  run.Add(got);
  for (int fd : {pair[0], pair[1], ends[0]}) close(fd);
}

// Datagrams keep their bounds and their order.
void Datagrams(Run& run, int from, int to) {
  uint64_t seed = run.random.Next();
  pid_t child = Fork([&] {
    Random random(seed);
    uint8_t data[3000];
    for (int i = 0; i < 100; ++i) {
      size_t size = 1 + random.Below(sizeof data);
      for (size_t j = 0; j < size; ++j) data[j] = static_cast<uint8_t>(random.Next() >> 9);
      Must(send(from, data, size, 0) == static_cast<ssize_t>(size), "send");
      // UDP drops what its receiver has no room for.
      uint8_t acknowledged;
      Must(recv(from, &acknowledged, 1, 0) == 1, "recv");
    }
  });
  Random random(seed);
  uint8_t data[4000];
  for (int i = 0; i < 100; ++i) {
    ssize_t got = recv(to, data, sizeof data, 0);
    size_t size = 1 + random.Below(3000);
    if (got != static_cast<ssize_t>(size)) Fail("datagram %d has %zd bytes, not %zu", i, got, size);
    for (size_t j = 0; j < size; ++j) {
      if (data[j] != static_cast<uint8_t>(random.Next() >> 9)) Fail("datagram %d differs", i);
    }
    run.sum = Hash(run.sum, data, size);
    Must(send(to, data, 1, 0) == 1, "send");
  }
  Join(child);
  close(from);
  close(to);
}

sockaddr_storage Loopback(int family, socklen_t* size) {
  sockaddr_storage address = {};
  if (family == AF_INET) {
    auto* four = reinterpret_cast<sockaddr_in*>(&address);
    four->sin_family = AF_INET;
    four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *size = sizeof *four;
  } else {
    auto* six = reinterpret_cast<sockaddr_in6*>(&address);
    six->sin6_family = AF_INET6;
    six->sin6_addr = in6addr_loopback;
    *size = sizeof *six;
  }
  return address;
}

void BindToLoopback(int fd, int family, sockaddr_storage* address, socklen_t* size) {
  *address = Loopback(family, size);
  Must(bind(fd, reinterpret_cast<sockaddr*>(address), *size) == 0, "bind");
  Must(getsockname(fd, reinterpret_cast<sockaddr*>(address), size) == 0, "getsockname");
}

void TcpPair(int family, int ends[2]) {
  int listener = socket(family, SOCK_STREAM, 0);
  Must(listener >= 0, "socket");
  sockaddr_storage address;
  socklen_t size;
  BindToLoopback(listener, family, &address, &size);
  Must(listen(listener, 1) == 0, "listen");
  ends[0] = socket(family, SOCK_STREAM, 0);
  Must(connect(ends[0], reinterpret_cast<sockaddr*>(&address), size) == 0, "connect");
  ends[1] = accept(listener, nullptr, nullptr);
  Must(ends[1] >= 0, "accept");
  close(listener);
}

void UdpPair(int ends[2]) {
  sockaddr_storage addresses[2];
  socklen_t size = 0;
  for (int i = 0; i < 2; ++i) {
    ends[i] = socket(AF_INET, SOCK_DGRAM, 0);
    Must(ends[i] >= 0, "socket");
    BindToLoopback(ends[i], AF_INET, &addresses[i], &size);
  }
  for (int i = 0; i < 2; ++i) {
    Must(connect(ends[i], reinterpret_cast<sockaddr*>(&addresses[1 - i]), size) == 0, "connect");
  }
}

void Sockets(Run& run) {
  for (uint64_t round = 0; round < run.rounds; ++round) {
    int pair[2];
    Must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    EchoThrough(run, pair[0], pair[1], 300000);
    for (int family : {AF_INET, AF_INET6}) {
      TcpPair(family, pair);
      EchoThrough(run, pair[0], pair[1], 200000);
    }
    Must(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0, "socketpair");
    Datagrams(run, pair[0], pair[1]);
    UdpPair(pair);
    Datagrams(run, pair[0], pair[1]);
    PassDescriptor(run);
  }
}

// One process serves many connections through epoll, without ever blocking on one.
void Server(Run& run) {
  constexpr int kClients = 8;
  constexpr uint64_t kRequests = 30;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  Must(listener >= 0, "socket");
  sockaddr_storage address;
  socklen_t size;
  BindToLoopback(listener, AF_INET, &address, &size);
  Must(listen(listener, kClients) == 0, "listen");
  for (uint64_t round = 0; round < run.rounds; ++round) {
    pid_t clients[kClients];
    for (int i = 0; i < kClients; ++i) {
      clients[i] = Fork([&] {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        Must(connect(fd, reinterpret_cast<sockaddr*>(&address), size) == 0, "connect");
        int on = 1;
        Must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
        Random random(round * kClients + static_cast<uint64_t>(i));
        for (uint64_t j = 0; j < kRequests; ++j) {
          uint64_t request = random.Next(), answer = 0;
          SendAll(fd, reinterpret_cast<uint8_t*>(&request), sizeof request);
          Must(recv(fd, &answer, sizeof answer, MSG_WAITALL) == sizeof answer, "recv");
          if (answer != request * 3 + 1) Fail("a request got the answer of another");
        }
        close(fd);
      });
    }
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    Watch(epoll, listener, EPOLLIN);
    uint64_t served = 0;
    for (int closed = 0; closed < kClients;) {
      int fd = Ready(epoll, -1);
      if (fd == listener) {
        int one = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
        if (one >= 0) Watch(epoll, one, EPOLLIN | EPOLLRDHUP);
        continue;
      }
      uint64_t request = 0;
      ssize_t got = recv(fd, &request, sizeof request, 0);
      if (got == 0) {
        close(fd);
        ++closed;
        continue;
      }
      Must(got == sizeof request, "recv a request");
      request = request * 3 + 1;
      SendAll(fd, reinterpret_cast<uint8_t*>(&request), sizeof request);
      ++served;
    }
    if (served != kClients * kRequests) Fail("%llu requests", (unsigned long long)served);
    run.Add(served);
    for (pid_t client : clients) Join(client);
    close(epoll);
  }
  close(listener);
}

constexpr Subtest kSubtests[] = {
    {"events", Events, 20},
    {"sockets", Sockets, 5},
    {"server", Server, 10},
};

}  // namespace

std::span<const Subtest> EventSubtests() { return kSubtests; }

}  // namespace cube::testing
