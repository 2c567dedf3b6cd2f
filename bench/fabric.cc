// What the network fabric costs, in network namespaces of its own: attaching a sandbox, changing a
// policy, judging a packet, and carrying traffic beside nftables. Needs root and nft. Prints a
// table; a third argument is a file for the samples, as a report.
//
//   bazel run //bench:fabric [-- SECONDS ROUNDS [FILE]]
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "base/monotonic.h"
#include "bench/report/report.h"
#include "net/fabric.h"
#include "net/testing/network.h"
#include "net/testing/program_fixture.h"

namespace cube::net {
namespace {

using testing::Bytes;
using testing::Frame;
using testing::NetNamespace;

constexpr char kWorld[] = "192.0.2.80";
constexpr uint32_t kRules = 100;

void Must(const Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "%s\n", status.error().message().c_str());
  exit(1);
}
template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) Must(Status(result.error()));
  return std::move(result).value();
}

// All that was measured.
bench::Report report;

void Keep(uint32_t count, const char* name, const char* unit, const std::vector<double>& samples,
          bool less_is_better = true, bool is_peer = false) {
  report.measurements.push_back({"network fabric", Format("%s, %u sandboxes", name, count), unit,
                                 samples, "", less_is_better, is_peer});
}

double Percentile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

// 100 rules, of other networks each time.
Policy Rules(uint32_t seed) {
  Policy policy;
  for (uint32_t i = 0; i < kRules; ++i) {
    uint32_t address = 0x14000000 + ((seed * 7919 + i * 104729) % (1 << 20)) * 256;
    PolicyRule rule;
    rule.network = {address, 24};
    (i % 2 == 0 ? policy.allow : policy.deny).push_back(rule);
  }
  return policy;
}

double RunOnce(int program, const Bytes& frame, uint32_t ifindex, uint32_t* action) {
  Bytes out(4096);
  __sk_buff context = {};
  context.ifindex = ifindex;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<uint32_t>(frame.size());
  options.data_out = out.data();
  options.data_size_out = static_cast<uint32_t>(out.size());
  options.ctx_in = &context;
  options.ctx_size_in = sizeof context;
  options.repeat = 1;
  if (bpf_prog_test_run_opts(program, &options) != 0) return 0;
  *action = options.retval;
  return options.duration;
}

// The world behind "up", as in the tests.
NetNamespace SetUpWorld() {
  Must(testing::EnterNamespace());
  Netlink netlink = Must(Netlink::Open());
  NetNamespace world = Must(NetNamespace::Create());
  Must(netlink.AddVeth("up", "world"));
  Must(netlink.Move((*Must(netlink.Find("world"))).index, world.fd()));
  uint32_t up = (*Must(netlink.Find("up"))).index;
  Must(netlink.SetUp(up));
  Must(netlink.AddAddress(up, testing::Address("203.0.113.1"), 24));
  Must(netlink.AddRoute(0, 0, testing::Address("203.0.113.2")));
  world.Run([] {
    Netlink inner = Must(Netlink::Open());
    uint32_t index = (*Must(inner.Find("world"))).index;
    Must(inner.SetUp(index));
    Must(inner.SetUp(1));
    Must(inner.AddAddress(1, testing::Address(kWorld), 32));
    Must(inner.AddAddress(index, testing::Address("203.0.113.2"), 24));
  });
  return world;
}

FabricOptions Options() {
  FabricOptions options;
  options.prefix = "b";
  options.pins = "";
  options.max_flows = 1 << 20;  // nobody reaps those that have been closed
  return options;
}

void MeasureTables(Fabric* fabric, uint32_t count) {
  while (fabric->sandboxes().size() < count) {
    std::string id = Format("s%zu", fabric->sandboxes().size());
    Must(fabric->EnsureNetwork(id, Rules(static_cast<uint32_t>(fabric->sandboxes().size()))));
  }
  Must(fabric->Fill(1));
  std::vector<double> attach, update, known, fresh;
  for (int i = 0; i < 200; ++i) {
    uint64_t start = MonotonicNow();
    LentTap tap = Must(fabric->Lend());
    Must(fabric->Assign(tap.slot, "probe"));
    Must(fabric->EnsureNetwork("probe", Policy()));
    attach.push_back(static_cast<double>(MonotonicNow() - start) / 1000);
    tap.fd.Reset();
    fabric->ReleaseNetwork("probe");
  }
  for (uint32_t i = 0; i < 200; ++i) {
    Policy policy = Rules(100'000 + i);
    uint64_t start = MonotonicNow();
    Must(fabric->EnsureNetwork(Format("s%u", i % count), policy));
    update.push_back(static_cast<double>(MonotonicNow() - start) / 1000);
  }
  Frame frame;
  frame.source = testing::Address("169.254.0.21");
  frame.target = testing::Address(kWorld);
  frame.protocol = 17;
  frame.target_port = 9000;
  frame.payload = Bytes(64, 'x');
  int program = fabric->programs().from_sandbox();
  for (uint32_t i = 0; i < 20'000; ++i) {
    uint32_t slot = *fabric->SlotOf(Format("s%u", (i * 7919) % count));
    frame.source_port = static_cast<uint16_t>(1024 + i / count % 8);
    Bytes bytes = frame.Build();
    uint32_t ifindex = fabric->SlotState(slot).ifindex, action = 0;
    double first = RunOnce(program, bytes, ifindex, &action);
    if (i / count < 8) fresh.push_back(first);
    if (i / count >= 8) known.push_back(RunOnce(program, bytes, ifindex, &action));
    if (action != 7) exit(1);  // TC_ACT_REDIRECT: it was let through
  }
  printf("| %u | %.0f (%.0f) | %.0f (%.0f) | %.0f (%.0f) | %.0f (%.0f) |\n", count,
         Percentile(attach, 0.5), Percentile(attach, 0.99), Percentile(update, 0.5),
         Percentile(update, 0.99), Percentile(known, 0.5), Percentile(known, 0.99),
         Percentile(fresh, 0.5), Percentile(fresh, 0.99));
  fflush(stdout);
  Keep(count, "attach of a TAP that is ready", "us", attach);
  Keep(count, "policy of 100 rules", "us", update);
  Keep(count, "verdict on a packet of a known flow", "ns", known);
  Keep(count, "verdict on a packet of a new flow", "ns", fresh);
}

// A guest on a veth in place of a TAP: it has no process between, which would cost more than all
// that is compared.
NetNamespace MakeGuest(Netlink* netlink) {
  NetNamespace guest = Must(NetNamespace::Create());
  Must(netlink->AddVeth("guest", "eth0"));
  Must(netlink->Move((*Must(netlink->Find("eth0"))).index, guest.fd()));
  uint32_t index = (*Must(netlink->Find("guest"))).index;
  Must(netlink->SetMac(index, {0x02, 0xcb, 0, 0, 0, 0x16}));
  Must(netlink->SetUp(index));
  guest.Run([] {
    Netlink inner = Must(Netlink::Open());
    uint32_t eth0 = (*Must(inner.Find("eth0"))).index;
    Must(inner.SetMac(eth0, {0x02, 0xcb, 0, 0, 0, 0x15}));
    Must(inner.SetUp(1));
    Must(inner.SetUp(eth0));
    Must(inner.AddAddress(eth0, testing::Address("169.254.0.21"), 30));
    Must(inner.AddRoute(0, 0, testing::Address("169.254.0.22")));
  });
  return guest;
}

void Write(const char* path, const char* text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) perror(path);
  close(fd);
}

void Nft(const std::string& script) {
  FILE* nft = popen("/usr/sbin/nft -f -", "w");
  fwrite(script.data(), 1, script.size(), nft);
  if (pclose(nft) != 0) exit(1);
}

// Masquerade, and a chain for each sandbox, found by a map; what is established is let through
// before.
std::string NftRules(uint32_t sandboxes) {
  std::string script = "table ip b {\n";
  std::string map;
  for (uint32_t i = 0; i < sandboxes; ++i) {
    script += Format("chain s%u {\n", i);
    for (const PolicyRule& rule : Rules(i).deny) {
      script += "ip daddr " + NetworkText(rule.network) + " drop\n";
      script += "ip daddr " + NetworkText(Network{rule.network.address ^ 0x10000, 24}) + " accept\n";
    }
    script += "accept\n}\n";
    std::string interface = i == 0 ? "guest" : Format("b-%u", i);
    map += (i == 0 ? "" : ", ") + ("\"" + interface + "\" : jump s" + std::to_string(i));
  }
  script +=
      "chain forward { type filter hook forward priority 0; policy drop;\n"
      "ct state established,related accept\niifname vmap { " +
      map + " }\n}\n";
  script +=
      "chain postrouting { type nat hook postrouting priority 100;\n"
      "oifname \"up\" masquerade\n}\n}\n";
  return script;
}

double TcpGbits(const NetNamespace& guest, const NetNamespace& world, double seconds) {
  UniqueFd listener = world.Socket(SOCK_STREAM, kWorld, 9001);
  std::atomic<uint64_t> heard = 0;
  std::thread sink([&] {
    UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::vector<char> buffer(1 << 20);
    for (ssize_t n; (n = recv(peer.get(), buffer.data(), buffer.size(), 0)) > 0;) {
      heard += static_cast<uint64_t>(n);
    }
  });
  UniqueFd socket = guest.Socket(SOCK_STREAM);
  if (testing::Connect(socket, kWorld, 9001) != 0) {
    fprintf(stderr, "the guest cannot connect\n");
    exit(1);
  }
  std::vector<char> buffer(1 << 18);
  uint64_t start = MonotonicNow(), end = start + static_cast<uint64_t>(seconds * 1e9);
  while (MonotonicNow() < end) {
    if (send(socket.get(), buffer.data(), buffer.size(), MSG_NOSIGNAL) <= 0) break;
  }
  double passed = static_cast<double>(MonotonicNow() - start);
  socket.Reset();
  sink.join();
  return static_cast<double>(heard) * 8 / passed;
}

// Datagrams of 64 bytes that arrive, thousands a second.
double UdpKpps(const NetNamespace& guest, const NetNamespace& world, double seconds) {
  UniqueFd sink = world.Socket(SOCK_DGRAM, kWorld, 9002);
  int size = 4 << 20;
  setsockopt(sink.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  timeval limit = {0, 100'000};
  setsockopt(sink.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::atomic<bool> over = false;
  std::atomic<uint64_t> heard = 0;
  std::thread reader([&] {
    char bytes[64][64];
    mmsghdr messages[64] = {};
    iovec parts[64];
    for (int i = 0; i < 64; ++i) {
      parts[i] = {bytes[i], 64};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    while (!over) {
      int n = recvmmsg(sink.get(), messages, 64, MSG_WAITFORONE, nullptr);
      if (n > 0) heard += static_cast<uint64_t>(n);
    }
  });
  UniqueFd socket = guest.Socket(SOCK_DGRAM);
  testing::Connect(socket, kWorld, 9002);
  char bytes[64] = {};
  iovec part = {bytes, 64};
  mmsghdr messages[64] = {};
  for (mmsghdr& message : messages) {
    message.msg_hdr.msg_iov = &part;
    message.msg_hdr.msg_iovlen = 1;
  }
  uint64_t start = MonotonicNow(), end = start + static_cast<uint64_t>(seconds * 1e9);
  while (MonotonicNow() < end) sendmmsg(socket.get(), messages, 64, 0);
  double passed = static_cast<double>(MonotonicNow() - start);
  over = true;
  reader.join();
  return static_cast<double>(heard) / passed * 1e6;
}

// New connections a second, each closed at once: where rules are looked at.
double Connects(const NetNamespace& guest, const NetNamespace& world, double seconds) {
  UniqueFd listener = world.Socket(SOCK_STREAM, kWorld, 9003);
  std::atomic<bool> over = false;
  std::thread acceptor([&] {
    while (!over) {
      int peer = accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (peer >= 0) close(peer);
    }
  });
  uint64_t count = 0;
  uint64_t start = MonotonicNow(), end = start + static_cast<uint64_t>(seconds * 1e9);
  guest.Run([&] {
    sockaddr_in at = {};
    at.sin_family = AF_INET;
    at.sin_port = htons(9003);
    at.sin_addr.s_addr = testing::Address(kWorld);
    while (MonotonicNow() < end) {
      UniqueFd one(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      linger abort = {1, 0};
      setsockopt(one.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
      count += connect(one.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) == 0;
    }
  });
  double passed = static_cast<double>(MonotonicNow() - start);
  over = true;
  shutdown(listener.get(), SHUT_RDWR);
  acceptor.join();
  return static_cast<double>(count) / passed * 1e9;
}

struct Samples {
  std::vector<double> tcp, udp, connects;
  void Take(const NetNamespace& guest, const NetNamespace& world, double seconds) {
    tcp.push_back(TcpGbits(guest, world, seconds));
    udp.push_back(UdpKpps(guest, world, seconds));
    connects.push_back(Connects(guest, world, seconds));
  }
  void Print(uint32_t count, const char* what) const {
    printf("| %u | %s | %.2f | %.0f | %.0f |\n", count, what, Percentile(tcp, 0.5),
           Percentile(udp, 0.5), Percentile(connects, 0.5));
    fflush(stdout);
    const bool is_peer = strcmp(what, "fabric") != 0;
    const std::string by = std::string(" through ") + what;
    Keep(count, ("TCP" + by).c_str(), "Gbit/s", tcp, false, is_peer);
    Keep(count, ("UDP of 64 bytes" + by).c_str(), "1000/s", udp, false, is_peer);
    Keep(count, ("TCP connections" + by).c_str(), "1/s", connects, false, is_peer);
  }
};

// The slot of the first sandbox gets the veth for its TAP.
void AttachGuest(Fabric* fabric, uint32_t up, uint32_t guest) {
  uint32_t slot = *fabric->SlotOf("s0");
  Must(fabric->programs().AttachSandbox(guest));
  Must(fabric->programs().AttachUplink(up));
  fabric->programs().slots()[slot].ifindex = guest;
  Must(fabric->programs().SetTap(guest, slot));
}

// Both ways in turn, so that what else the machine does is shared.
void MeasureTraffic(Fabric* fabric, const NetNamespace& world, const NetNamespace& guest,
                    uint32_t count, double seconds, int rounds) {
  Netlink netlink = Must(Netlink::Open());
  Link up = *Must(netlink.Find("up")), link = *Must(netlink.Find("guest"));
  Samples fabric_samples, nft_samples;
  const std::string rules = NftRules(count);
  for (int round = 0; round < rounds; ++round) {
    AttachGuest(fabric, up.index, link.index);
    fabric_samples.Take(guest, world, seconds);
    Programs::DetachUplink(up.index);
    Programs::DetachUplink(link.index);
    Must(netlink.AddAddress(link.index, testing::Address("169.254.0.22"), 30));
    Write("/proc/sys/net/ipv4/ip_forward", "1");
    Nft(rules);
    nft_samples.Take(guest, world, seconds);
    Nft("delete table ip b\n");
    Write("/proc/sys/net/ipv4/ip_forward", "0");
  }
  fabric_samples.Print(count, "fabric");
  nft_samples.Print(count, "nftables");
}

// What the kernel says that the programs take. Not while they are compared with others: its
// counting costs as much as a fifth of what it counts.
void PrintStatistics(Fabric* fabric, const NetNamespace& world, const NetNamespace& guest) {
  Netlink netlink = Must(Netlink::Open());
  AttachGuest(fabric, (*Must(netlink.Find("up"))).index, (*Must(netlink.Find("guest"))).index);
  int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
  TcpGbits(guest, world, 1);
  UdpKpps(guest, world, 1);
  const struct {
    const char* name;
    int program;
  } kPrograms[] = {{"from_sandbox", fabric->programs().from_sandbox()},
                   {"from_world", fabric->programs().from_world()},
                   {"early_filter", fabric->programs().early_filter()}};
  printf("\nBy the kernel's statistics, a packet of TCP or UDP takes\n");
  for (const auto& each : kPrograms) {
    bpf_prog_info info = {};
    uint32_t size = sizeof info;
    if (bpf_obj_get_info_by_fd(each.program, &info, &size) != 0 || info.run_cnt == 0) continue;
    printf("%s %.0f ns (%llu packets)\n", each.name,
           static_cast<double>(info.run_time_ns) / static_cast<double>(info.run_cnt),
           static_cast<unsigned long long>(info.run_cnt));
  }
  close(stats);
}

int Main(double seconds, int rounds, const char* file) {
  NetNamespace world = SetUpWorld();
  auto fabric = Must(Fabric::Open(Options()));
  printf(
      "| sandboxes | attach us, p50 (p99) | policy of %u rules us | verdict ns, known flow "
      "| new flow |\n|---|---|---|---|---|\n",
      kRules);
  for (uint32_t count : {10, 100, 1000}) MeasureTables(fabric.get(), count);
  fabric.reset();
  fabric = Must(Fabric::Open(Options()));
  Netlink netlink = Must(Netlink::Open());
  NetNamespace guest = MakeGuest(&netlink);
  printf(
      "\n| sandboxes | | TCP Gbit/s | UDP 64 bytes, 1000/s | connections/s |\n"
      "|---|---|---|---|---|\n");
  for (uint32_t count : {1, 1000}) {
    while (fabric->sandboxes().size() < count) {
      auto next = static_cast<uint32_t>(fabric->sandboxes().size());
      Must(fabric->EnsureNetwork(Format("s%u", next), Rules(next)));
    }
    MeasureTraffic(fabric.get(), world, guest, count, seconds, rounds);
  }
  PrintStatistics(fabric.get(), world, guest);
  if (file == nullptr) return 0;
  std::ofstream out(file, std::ios::binary);
  out << report.ToJson();
  out.close();
  return out ? 0 : 1;
}

}  // namespace
}  // namespace cube::net

int main(int argc, char** argv) {
  return cube::net::Main(argc > 1 ? atof(argv[1]) : 2, argc > 2 ? atoi(argv[2]) : 3,
                         argc > 3 ? argv[3] : nullptr);
}
