#include "devices/rng/rng.h"
#include "devices/virtio/testing/device_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube;
  devices::virtio::fake::FuzzDevice({data, size},
                                    [](vmm::EventLoop*) { return devices::Rng::Create(); });
  return 0;
}
