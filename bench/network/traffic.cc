#include "bench/network/traffic.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "base/monotonic.h"
#include "bench/report/statistics.h"
#include "net/netlink.h"

namespace cube::net {
namespace {

using testing::NetNamespace;

// Who sends does the work of the way between on its own processor, and who receives has another:
// left to the scheduler, rounds differ by more than what is compared.
constexpr size_t kGuestCpu = 0, kWorldCpu = 1;

void PinTo(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // On a machine of one processor there is nothing to choose.
  (void)sched_setaffinity(0, sizeof set, &set);
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
      script +=
          "ip daddr " + NetworkText(Network{rule.network.address ^ 0x10000, 24}) + " accept\n";
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
    PinTo(kWorldCpu);
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
    PinTo(kWorldCpu);
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
    PinTo(kWorldCpu);
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
  void Show(uint32_t count, const char* what, bool is_peer, bench::Report* report) const {
    printf("| %u | %s | %.2f | %.0f | %.0f |\n", count, what, bench::Summarise(tcp).p50,
           bench::Summarise(udp).p50, bench::Summarise(connects).p50);
    const std::string by = std::string(" through ") + what;
    Keep(report, count, "TCP" + by, "Gbit/s", tcp, false, is_peer);
    Keep(report, count, "UDP of 64 bytes" + by, "1000/s", udp, false, is_peer);
    Keep(report, count, "TCP connections" + by, "1/s", connects, false, is_peer);
  }
};

// Round by round: what the machine is at that minute is in both of them.
std::string Ratio(const std::vector<double>& fabric, const std::vector<double>& peer) {
  std::vector<double> ratios;
  for (size_t i = 0; i < fabric.size(); ++i) ratios.push_back(fabric[i] / peer[i]);
  bench::Interval interval = bench::MedianInterval(ratios);
  return Format("%.2f (%.2f to %.2f)", bench::Summarise(ratios).p50, interval.low, interval.high);
}

// The slot of the first sandbox gets the veth for its TAP.
void AttachGuest(Fabric* fabric, uint32_t up, uint32_t guest) {
  uint32_t slot = *fabric->SlotOf("s0");
  Must(fabric->programs().AttachSandbox(guest));
  Must(fabric->programs().AttachUplink(up));
  fabric->programs().slots()[slot].ifindex = guest;
  Must(fabric->programs().SetTap(guest, slot));
}

}  // namespace

NetNamespace MakeGuest() {
  Netlink opened = Must(Netlink::Open());
  Netlink* netlink = &opened;
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

void PrintTrafficHead() {
  printf(
      "\n| sandboxes | | TCP Gbit/s | UDP 64 bytes, 1000/s | connections/s |\n"
      "|---|---|---|---|---|\n");
}

void MeasureTraffic(Fabric* fabric, const NetNamespace& world, const NetNamespace& guest,
                    uint32_t count, double seconds, int rounds, bench::Report* report) {
  PinTo(kGuestCpu);
  Netlink netlink = Must(Netlink::Open());
  Link up = *Must(netlink.Find("up")), link = *Must(netlink.Find("guest"));
  Samples by_fabric, by_nftables;
  const std::string rules = NftRules(count);
  std::function<void()> turns[] = {
      [&] {
        AttachGuest(fabric, up.index, link.index);
        by_fabric.Take(guest, world, seconds);
        Programs::DetachUplink(up.index);
        Programs::DetachUplink(link.index);
      },
      [&] {
        Must(netlink.AddAddress(link.index, testing::Address("169.254.0.22"), 30));
        Write("/proc/sys/net/ipv4/ip_forward", "1");
        Nft(rules);
        by_nftables.Take(guest, world, seconds);
        Nft("delete table ip b\n");
        Write("/proc/sys/net/ipv4/ip_forward", "0");
      },
  };
  for (int round = 0; round < rounds; ++round) {
    turns[round % 2]();
    turns[1 - round % 2]();
  }
  by_fabric.Show(count, "fabric", false, report);
  by_nftables.Show(count, "nftables", true, report);
  printf("| %u | ratio, median of %d rounds (95 %%) | %s | %s | %s |\n", count, rounds,
         Ratio(by_fabric.tcp, by_nftables.tcp).c_str(),
         Ratio(by_fabric.udp, by_nftables.udp).c_str(),
         Ratio(by_fabric.connects, by_nftables.connects).c_str());
  fflush(stdout);
}

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

}  // namespace cube::net
