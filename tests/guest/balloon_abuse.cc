// A guest that gives back memory which it uses: it takes the balloon away from the kernel's driver,
// by the device's registers, and has it discard what the first argument says:
//   own      a page of this program's, which then holds zeros, and which the program uses on
//   wild     ranges that are no memory, or wrap; says how the device answers
//   report   all of the memory, by the queue of free pages
//   inflate  all of the memory, by the queue of the balloon's pages
// The last two end the guest one way or another.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "devices/balloon/spec.h"
#include "devices/virtio/spec.h"
#include "vmm/memory_map.h"

namespace {

namespace virtio = cube::devices::virtio;
namespace balloon = cube::devices::balloon;

constexpr size_t kPage = 4096;
constexpr uint32_t kQueueSize = 64;

[[noreturn]] void Fail(const char* what) {
  perror(what);
  exit(1);
}

// Pages of this program that stay where they are, one after the other in guest-physical memory only
// by chance: each is used by itself.
uint8_t* NewPage() {
  void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
  if (page == MAP_FAILED) Fail("mmap");
  return static_cast<uint8_t*>(page);
}

uint64_t Physical(const void* address) {
  int fd = open("/proc/self/pagemap", O_RDONLY);
  uint64_t entry = 0;
  auto page = reinterpret_cast<uintptr_t>(address) / kPage;
  if (pread(fd, &entry, sizeof entry, static_cast<off_t>(page * sizeof entry)) != sizeof entry) {
    Fail("/proc/self/pagemap");
  }
  close(fd);
  return (entry & ((1ull << 55) - 1)) * kPage + reinterpret_cast<uintptr_t>(address) % kPage;
}

class Device {
 public:
  // Finds it among the devices.
  Device() {
    int fd = open("/dev/mem", O_RDWR | O_SYNC);
    for (uint32_t i = 0; i < cube::vmm::kVirtioMaxDevices; ++i) {
      auto at = static_cast<off_t>(cube::vmm::kVirtioMmioStart + i * cube::vmm::kVirtioMmioSize);
      void* mapped = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
      if (mapped == MAP_FAILED) Fail("/dev/mem");
      registers_ = static_cast<volatile uint32_t*>(mapped);
      if (Get(virtio::kMmioMagicValue) == virtio::kMmioMagic &&
          Get(virtio::kMmioDeviceId) == virtio::kDeviceBalloon) {
        return;
      }
    }
    fprintf(stderr, "no balloon\n");
    exit(1);
  }

  // Resets the device and sets up the one queue `index`, in one page.
  void Start(uint32_t index) {
    index_ = index;
    Set(virtio::kMmioStatus, 0);
    Set(virtio::kMmioStatus, virtio::kStatusAcknowledge | virtio::kStatusDriver);
    Set(virtio::kMmioDriverFeaturesSel, 0);
    Set(virtio::kMmioDriverFeatures, static_cast<uint32_t>(balloon::kFeatureReporting));
    Set(virtio::kMmioDriverFeaturesSel, 1);
    Set(virtio::kMmioDriverFeatures, static_cast<uint32_t>(virtio::kFeatureVersion1 >> 32));
    constexpr uint32_t kReady =
        virtio::kStatusAcknowledge | virtio::kStatusDriver | virtio::kStatusFeaturesOk;
    Set(virtio::kMmioStatus, kReady);
    queue_ = NewPage();
    uint64_t physical = Physical(queue_);
    Set(virtio::kMmioQueueSel, index);
    Set(virtio::kMmioQueueNum, kQueueSize);
    SetAddress(virtio::kMmioQueueDescLow, physical);
    SetAddress(virtio::kMmioQueueDriverLow, physical + kAvailable);
    SetAddress(virtio::kMmioQueueDeviceLow, physical + kUsed);
    Set(virtio::kMmioQueueReady, 1);
    Set(virtio::kMmioStatus, kReady | virtio::kStatusDriverOk);
    next_ = 0;
  }

  void Add(uint32_t slot, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
    uint8_t* descriptor = queue_ + 16 * slot;
    memcpy(descriptor, &address, 8);
    memcpy(descriptor + 8, &length, 4);
    memcpy(descriptor + 12, &flags, 2);
    memcpy(descriptor + 14, &next, 2);
  }

  // Offers the chain that begins in `slot` and waits until it has been used, or the device needs a
  // reset: false then.
  bool Offer(uint16_t slot) {
    memcpy(queue_ + kAvailable + 4 + 2 * (next_ % kQueueSize), &slot, 2);
    ++next_;
    auto* available = reinterpret_cast<uint16_t*>(queue_ + kAvailable + 2);
    auto* used = reinterpret_cast<uint16_t*>(queue_ + kUsed + 2);
    __atomic_store_n(available, next_, __ATOMIC_SEQ_CST);
    Set(virtio::kMmioQueueNotify, index_);
    while (__atomic_load_n(used, __ATOMIC_ACQUIRE) != next_) {
      if ((Get(virtio::kMmioStatus) & virtio::kStatusNeedsReset) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kAvailable = 16 * kQueueSize, kUsed = 2048;

  uint32_t Get(uint32_t offset) const { return registers_[offset / 4]; }
  void Set(uint32_t offset, uint32_t value) { registers_[offset / 4] = value; }
  void SetAddress(uint32_t offset, uint64_t value) {
    Set(offset, static_cast<uint32_t>(value));
    Set(offset + 4, static_cast<uint32_t>(value >> 32));
  }

  volatile uint32_t* registers_ = nullptr;
  uint8_t* queue_ = nullptr;
  uint32_t index_ = 0;
  uint16_t next_ = 0;
};

bool Report(Device* device, uint64_t address, uint32_t length) {
  device->Add(0, address, length, virtio::kDescriptorWrite, 0);
  return device->Offer(0);
}

// A request of page numbers, from a page of its own.
bool Inflate(Device* device, uint8_t* page, const uint32_t* numbers, size_t count) {
  memcpy(page, numbers, count * sizeof *numbers);
  device->Add(0, Physical(page), static_cast<uint32_t>(count * sizeof *numbers), 0, 0);
  return device->Offer(0);
}

void Own(Device* device) {
  uint8_t* page = NewPage();
  memset(page, 0x5a, kPage);
  device->Start(balloon::kReportingQueue);
  bool taken = Report(device, Physical(page), kPage);
  size_t zeros = static_cast<size_t>(std::count(page, page + kPage, 0));
  printf("reported %d zeros %zu\n", taken, zeros);
  memset(page, 0xa5, kPage);
  uint8_t* numbers = NewPage();
  device->Start(balloon::kInflateQueue);
  auto number = static_cast<uint32_t>(Physical(page) / kPage);
  taken = Inflate(device, numbers, &number, 1);
  zeros = static_cast<size_t>(std::count(page, page + kPage, 0));
  printf("inflated %d zeros %zu\n", taken, zeros);
  memset(page, 0x33, kPage);
  printf("used on %d\n", page[0] == 0x33 && page[kPage - 1] == 0x33);
}

void Wild(Device* device) {
  const struct {
    uint64_t address;
    uint32_t length;
  } ranges[] = {{~0ull - 4095, 4096}, {~0ull - 4095, 8192}, {1ull << 46, 4096},
                {0xd0000000, 4096},   {0xd0100000, 4096},   {0, 0xfffff000}};
  for (const auto& range : ranges) {
    device->Start(balloon::kReportingQueue);
    printf("%d", Report(device, range.address, range.length));
  }
  uint8_t* numbers = NewPage();
  const uint32_t wild[] = {~0u, ~0u - 1, 0xd0000, 0xd0001, 0xd0100, 0x80000000, 0x7fffffff};
  device->Start(balloon::kInflateQueue);
  printf(" %d\n", Inflate(device, numbers, wild, std::size(wild)));
}

void All(Device* device, bool report) {
  uint64_t memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * kPage;
  // What the kernel kept for itself too: up to the next power of two.
  uint64_t end = 1;
  while (end < memory) end *= 2;
  printf("going\n");
  fflush(stdout);
  device->Start(report ? balloon::kReportingQueue : balloon::kInflateQueue);
  if (report) {
    Report(device, 0, static_cast<uint32_t>(end));
    return;
  }
  uint8_t* page = NewPage();
  for (uint64_t first = 0; first < end / kPage; first += kPage / sizeof(uint32_t)) {
    uint32_t numbers[kPage / sizeof(uint32_t)];
    for (size_t i = 0; i < std::size(numbers); ++i) numbers[i] = static_cast<uint32_t>(first + i);
    Inflate(device, page, numbers, std::size(numbers));
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string what = argc > 1 ? argv[1] : "";
  Device device;
  if (what == "own") Own(&device);
  if (what == "wild") Wild(&device);
  if (what == "report" || what == "inflate") All(&device, what == "report");
  return 0;
}
