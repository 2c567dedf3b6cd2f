// The socket device against any bytes in its registers and queues (the first byte is odd), or
// against packets whose headers are good but for a few fields, with host peers that come and go.
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/testing/device_fuzz.h"
#include "devices/virtio/testing/fuzz_input.h"
#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using virtio::fake::FuzzInput;
using vsock::testing::VsockGuest;

constexpr uint32_t kListeningPort = 1;

class Player {
 public:
  explicit Player(FuzzInput input)
      : input_(input), guest_(5'000'000, input_.Take<uint8_t>() % 16), listener_(guest_.Listen(1)) {
    guest_.AddEventBuffers(input_.Take<uint8_t>() % 4);
  }

  void Play() {
    for (int step = 0; step < 200 && !input_.empty(); ++step) {
      Step();
      guest_.driver().Pump();
      while (auto packet = guest_.TryReceive()) last_ = packet->header;
      if (guest_.driver().MemoryLeft() < (1 << 20)) return;
    }
  }

 private:
  void Step() {
    switch (input_.Take<uint8_t>() % 12) {
      case 0:
      case 1:
      case 2:
      case 3:
        return Packet();
      case 4:
        if (clients_.size() < 16) {
          clients_.push_back(guest_.Connect(guest_.path()));
          const char* lines[] = {"CONNECT 1\n", "CONNECT 2\nmore", "CONNECT", "junk\n"};
          guest_.Write(clients_.back(), lines[input_.Take<uint8_t>() % 4]);
        }
        return;
      case 5: {
        UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (fd.valid()) clients_.push_back(std::move(fd));
        return;
      }
      case 6: {
        static const std::string kBytes(100'000, 'x');
        if (!clients_.empty()) {
          (void)!send(Client().get(), kBytes.data(), input_.Take<uint16_t>(),
                      MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        return;
      }
      case 7: {
        char bytes[65536];
        if (!clients_.empty()) {
          (void)!recv(Client().get(), bytes, 1 + input_.Take<uint16_t>(), MSG_DONTWAIT);
        }
        return;
      }
      case 8:
        if (!clients_.empty()) shutdown(Client().get(), input_.Take<uint8_t>() % 3);
        return;
      case 9:
        if (!clients_.empty()) {
          clients_.erase(clients_.begin() + input_.Take<uint8_t>() % std::ssize(clients_));
        }
        return;
      case 10:
        if (guest_.driver().CanAdd(kRxQueue, 1)) {
          guest_.AddReceiveBuffers(1, 45 + input_.Take<uint16_t>() % 8192);
        }
        return;
      default:
        switch (input_.Take<uint8_t>() % 4) {
          case 0:
            if (!guest_.SaveAndRestore().ok()) __builtin_trap();
            return;
          case 1:
            guest_.Restart();
            return;
          case 2:
            guest_.driver().transport().Quiesce();
            guest_.driver().Pump();
            guest_.driver().transport().Resume();
            return;
          default:
            if (guest_.driver().CanAdd(kEventQueue, 1)) guest_.AddEventBuffers(1);
            return;
        }
    }
  }

  UniqueFd& Client() { return clients_[input_.Take<uint8_t>() % clients_.size()]; }

  void Packet() {
    auto what = input_.Take<uint8_t>();
    auto mutation = input_.Take<uint8_t>();
    uint32_t guest_port = mutation % 4, host_port = kListeningPort + (mutation >> 2) % 2;
    if ((mutation & 0x10) != 0) guest_port = last_.dst_port, host_port = last_.src_port;
    Header header = VsockGuest::Make(static_cast<Operation>(what % 9), guest_port, host_port);
    size_t size = header.op == kOpData ? input_.Take<uint16_t>() : 0;
    header.len = static_cast<uint32_t>(size);
    header.flags = what >> 6;
    if ((mutation & 0x20) != 0) header.fwd_cnt = input_.Take<uint32_t>();
    if ((mutation & 0x40) != 0) header.buf_alloc = input_.Take<uint32_t>();
    if ((mutation & 0x80) != 0) {
      auto offset = input_.Take<uint8_t>() % sizeof header;
      reinterpret_cast<uint8_t*>(&header)[offset] ^= input_.Take<uint8_t>();
    }
    if (guest_.CanSend()) guest_.Send(header, std::string(size, 'y'));
  }

  FuzzInput input_;
  VsockGuest guest_;
  UniqueFd listener_;
  std::vector<UniqueFd> clients_;
  Header last_ = {};
};

// A device whose host side is a socket without a file, and nobody's.
std::unique_ptr<virtio::Device> MakeAlone(vmm::EventLoop* loop) {
  VsockConfig config;
  config.listener.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr address = {AF_UNIX, {}};
  // With no more than the family, the kernel makes up a name.
  if (bind(config.listener.get(), &address, sizeof address.sa_family) < 0) abort();
  if (listen(config.listener.get(), 4) < 0) abort();
  return Vsock::Create(std::move(config), loop).value();
}

}  // namespace
}  // namespace cube::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube::devices;
  if (size == 0) return 0;
  std::span<const uint8_t> rest(data + 1, size - 1);
  if ((data[0] & 1) != 0) {
    virtio::fake::FuzzDevice(rest, MakeAlone);
  } else {
    Player(FuzzInput(rest)).Play();
  }
  return 0;
}
