#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "devices/net/net.h"
#include "devices/net/testing/socket_backend.h"
#include "devices/virtio/testing/device_fuzz.h"

// The first bytes choose what the backend can do and what it has for the guest; the driver plays
// the rest (device_fuzz.h).
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube;
  using namespace cube::devices;
  constexpr size_t kChoices = 4;
  if (size < kChoices) return 0;
  const uint64_t offloads = (data[0] & 1) != 0
                                ? ~uint64_t{0} >> 1 & ~(uint64_t{7} << 28) & ~(uint64_t{1} << 32)
                                : net::kFeatureCsum;
  std::span<const uint8_t> input(data + kChoices, size - kChoices);
  std::vector<UniqueFd> peers;
  auto make = [&](vmm::EventLoop* loop) -> std::unique_ptr<virtio::Device> {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) abort();
    peers.clear();
    peers.emplace_back(pair[1]);
    // Frames of all sizes, their headers the fuzzer's.
    std::vector<uint8_t> frame(size_t{data[1]} * 260);
    std::copy_n(input.begin(), std::min(input.size(), frame.size()), frame.begin());
    for (int i = data[2] % 8; i > 0; --i) (void)!write(pair[1], frame.data(), frame.size() / i);
    if ((data[0] & 2) != 0) peers.clear();  // a peer that has left
    NetOptions options;
    options.mtu = (data[0] & 4) != 0 ? 9000 : 0;
    if ((data[0] & 8) != 0) options.receive.operations_per_second = data[3];
    if ((data[0] & 16) != 0) options.transmit.bytes_per_second = data[3];
    auto made = Net::Create(
        std::make_unique<net::testing::SocketBackend>(UniqueFd(pair[0]), offloads), options, loop);
    if (!made.ok()) abort();
    return std::move(made).value();
  };
  virtio::fake::FuzzDevice(input, make);
  return 0;
}
