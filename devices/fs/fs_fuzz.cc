// A hostile guest against a share that may be written to: rings and registers of any content, and
// FUSE requests whose nodes, handles and lengths are mostly plausible, for the others end early.
// Third, saved state of any content.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "devices/fs/testing/fuse_client.h"
#include "devices/virtio/testing/device_fuzz.h"
#include "devices/virtio/testing/fuzz_input.h"

namespace {

using cube::devices::fs::FsDevice;
using cube::devices::fs::ShareConfig;
using cube::devices::fs::testing::FuseClient;
using cube::devices::fs::testing::HostTree;
using cube::devices::virtio::fake::FuzzInput;

constexpr char kSecret[] = "not for the guest";

ShareConfig Share(const HostTree& tree) {
  ShareConfig config;
  config.directory = tree.share();
  config.tag = "fuzz";
  config.limits.inodes = 64;
  config.limits.warm_inodes = 4;
  config.limits.handles = 8;
  return config;
}

template <typename T>
void Append(std::vector<uint8_t>* out, T value) {
  const auto* raw = reinterpret_cast<const uint8_t*>(&value);
  out->insert(out->end(), raw, raw + sizeof value);
}

// Requests one by one, their arguments put together of small numbers, large ones and names.
void PlayRequests(FuzzInput input, FuseClient* client) {
  static const char* const kNames[] = {"file", "dir", "link", "out", "new", "..", "a/b", "sub"};
  for (int step = 0; step < 60 && !input.empty(); ++step) {
    uint32_t opcode = input.Take<uint8_t>() % 54;
    uint64_t node = input.Take<uint8_t>() % 12;
    std::vector<uint8_t> arguments;
    for (uint8_t parts = input.Take<uint8_t>() % 12; parts > 0; --parts) {
      uint8_t kind = input.Take<uint8_t>();
      switch (kind % 8) {
        case 0:
        case 1:
          Append<uint64_t>(&arguments, input.Take<uint8_t>() % 12);
          break;
        case 2:
          Append<uint32_t>(&arguments, input.Take<uint8_t>());
          break;
        case 3:
          Append<uint64_t>(&arguments, uint64_t{input.Take<uint8_t>()} << (kind % 64));
          break;
        case 4:
        case 5: {
          std::string name = kNames[input.Take<uint8_t>() % std::size(kNames)];
          arguments.insert(arguments.end(), name.c_str(), name.c_str() + name.size() + 1);
          break;
        }
        case 6:
          Append<uint64_t>(&arguments, 0);
          break;
        default: {
          auto raw = input.TakeBytes(kind / 8);
          arguments.insert(arguments.end(), raw.begin(), raw.end());
        }
      }
    }
    client->Call(opcode, node, arguments, input.Take<uint8_t>() * 16, opcode % 2);
    if (opcode == FUSE_DESTROY) client->Init();
  }
}

void PlayState(std::span<const uint8_t> input, FuseClient* client) {
  cube::StateReader reader(input, "saved state");
  if (!client->device().Load(&reader).ok()) return;
  cube::StateWriter writer;
  (void)client->device().Save(&writer);
  PlayRequests(FuzzInput(input), client);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Neither long files nor many descriptors by accident.
  signal(SIGXFSZ, SIG_IGN);
  rlimit size = {1 << 20, 1 << 20};
  setrlimit(RLIMIT_FSIZE, &size);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // In memory: a run makes and removes millions of files.
  setenv("TEST_TMPDIR", "/dev/shm", 1);
  HostTree tree;
  tree.Write("secret", kSecret);
  tree.Mkdir("share/dir/sub");
  tree.Write("share/dir/file", "content");
  tree.Write("share/file", "content");
  std::filesystem::create_symlink("../secret", tree.Path("share/link"));
  std::filesystem::create_directory_symlink("..", tree.Path("share/out"));
  std::span<const uint8_t> rest(data + 1, size - 1);
  if (data[0] % 4 == 0) {
    cube::devices::virtio::fake::FuzzDevice(
        rest, [&](cube::vmm::EventLoop* loop) -> std::unique_ptr<cube::devices::virtio::Device> {
          return std::move(*FsDevice::Create(Share(tree), loop));
        });
  } else {
    FuseClient client(Share(tree));
    if (data[0] % 4 == 1) {
      PlayState(rest, &client);
    } else {
      PlayRequests(FuzzInput(rest), &client);
    }
  }
  if (tree.Read("secret") != kSecret) __builtin_trap();
  return 0;
}
