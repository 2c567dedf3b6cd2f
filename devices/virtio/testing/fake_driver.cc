#include "devices/virtio/testing/fake_driver.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace cube::devices::virtio::fake {
namespace {

// The fixtures of a test cannot be had: no test can go on.
template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) abort();
  return std::move(result).value();
}

}  // namespace

FakeDriver::FakeDriver(const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make)
    : mapping_(Must(Mapping::Map(kMemorySize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                 -1, 0, "test memory"))),
      memory_(vmm::GuestMemory::Borrow({{kMemoryStart, mapping_.span(), true}})),
      loop_(Must(vmm::EventLoop::Create())) {
  MakeTransport(make);
}

FakeDriver::~FakeDriver() = default;

void FakeDriver::MakeTransport(
    const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make) {
  transport_ = Must(MmioTransport::Create("device", make(&loop_), &memory_, &loop_,
                                          Must(vmm::IrqLine::Create())));
}

uint32_t FakeDriver::Read(uint32_t offset) {
  uint32_t value = 0;
  transport_->Read(offset, {reinterpret_cast<uint8_t*>(&value), sizeof value});
  return value;
}

void FakeDriver::Write(uint32_t offset, uint32_t value) {
  transport_->Write(offset, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
}

std::vector<uint8_t> FakeDriver::ReadConfig(uint32_t offset, size_t size) {
  std::vector<uint8_t> bytes(size);
  transport_->Read(kMmioConfig + offset, bytes);
  return bytes;
}

uint64_t FakeDriver::OfferedFeatures() {
  Write(kMmioDeviceFeaturesSel, 0);
  uint64_t low = Read(kMmioDeviceFeatures);
  Write(kMmioDeviceFeaturesSel, 1);
  return low | uint64_t{Read(kMmioDeviceFeatures)} << 32;
}

bool FakeDriver::Negotiate(uint64_t features) {
  Write(kMmioStatus, 0);
  next_free_ = kMemoryStart;  // the device has let go of all of it
  queues_.assign(transport_->queue_count(), {});
  Write(kMmioStatus, kStatusAcknowledge);
  Write(kMmioStatus, kStatusAcknowledge | kStatusDriver);
  for (uint32_t half = 0; half < 2; ++half) {
    Write(kMmioDriverFeaturesSel, half);
    Write(kMmioDriverFeatures, static_cast<uint32_t>(features >> (32 * half)));
  }
  Write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  return (status() & kStatusFeaturesOk) != 0;
}

void FakeDriver::SetUpQueue(uint32_t queue, uint16_t size) {
  Write(kMmioQueueSel, queue);
  if (size == 0) size = static_cast<uint16_t>(Read(kMmioQueueNumMax));
  Queue& q = queues_[queue];
  q = {};
  q.layout = {Allocate(16u * size, 16), Allocate(6u + 2u * size, 2), Allocate(6u + 8u * size, 4),
              size, 0};
  std::ranges::fill(Memory(q.layout.descriptors, next_free_ - q.layout.descriptors), uint8_t{0});
  q.free.resize(size);
  std::iota(q.free.rbegin(), q.free.rend(), 0);
  q.chains.resize(size);
  Write(kMmioQueueNum, size);
  const struct {
    uint32_t offset;
    uint64_t value;
  } addresses[] = {{kMmioQueueDescLow, q.layout.descriptors},
                   {kMmioQueueDriverLow, q.layout.driver},
                   {kMmioQueueDeviceLow, q.layout.device}};
  for (auto [offset, value] : addresses) {
    Write(offset, static_cast<uint32_t>(value));
    Write(offset + 4, static_cast<uint32_t>(value >> 32));
  }
  Write(kMmioQueueReady, 1);
}

void FakeDriver::DriverOk() {
  Write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
}

void FakeDriver::Start(uint64_t features) {
  if (!Negotiate(features & OfferedFeatures())) abort();
  for (uint32_t i = 0; i < queues_.size(); ++i) SetUpQueue(i);
  DriverOk();
}

uint64_t FakeDriver::Allocate(size_t size, size_t alignment) {
  next_free_ = (next_free_ + alignment - 1) / alignment * alignment;
  uint64_t address = next_free_;
  next_free_ += size;
  if (next_free_ > kMemoryStart + kMemorySize) abort();
  return address;
}

uint64_t FakeDriver::Allocate(std::span<const uint8_t> bytes) {
  uint64_t address = Allocate(bytes.size());
  if (!memory_.Write(address, bytes)) abort();
  return address;
}

std::span<uint8_t> FakeDriver::Memory(uint64_t address, size_t size) {
  auto slice = memory_.Slice(address, size);
  if (!slice) abort();
  return *slice;
}

void FakeDriver::SetDescriptor(uint32_t queue, uint16_t index, const Descriptor& descriptor) {
  memory_.WriteObject(queues_[queue].layout.descriptors + 16ull * index, descriptor);
}

void FakeDriver::SetAvailable(uint32_t queue, uint16_t slot, uint16_t head) {
  memory_.WriteObject(queues_[queue].layout.driver + 4 + 2ull * slot, head);
}

void FakeDriver::PublishAvailable(uint32_t queue, uint16_t index) {
  queues_[queue].next_available = index;
  memory_.WriteObject(queues_[queue].layout.driver + 2, index);
}

void FakeDriver::SetAvailableFlags(uint32_t queue, uint16_t flags) {
  memory_.WriteObject(queues_[queue].layout.driver, flags);
}

void FakeDriver::SetUsedEvent(uint32_t queue, uint16_t index) {
  const QueueLayout& layout = queues_[queue].layout;
  memory_.WriteObject(layout.driver + 4 + 2ull * layout.size, index);
}

uint16_t FakeDriver::Add(uint32_t queue, const std::vector<Buffer>& buffers, bool indirect) {
  Queue& q = queues_[queue];
  size_t needed = indirect ? 1 : buffers.size();
  if (q.free.size() < needed || needed == 0) abort();
  std::vector<uint16_t> indices(q.free.end() - static_cast<ptrdiff_t>(needed), q.free.end());
  std::reverse(indices.begin(), indices.end());
  q.free.resize(q.free.size() - needed);
  std::vector<Descriptor> descriptors;
  for (size_t i = 0; i < buffers.size(); ++i) {
    bool last = i + 1 == buffers.size();
    auto next = static_cast<uint16_t>(last ? 0 : indirect ? i + 1 : indices[i + 1]);
    descriptors.push_back({buffers[i].address, buffers[i].size,
                           static_cast<uint16_t>((buffers[i].writable ? kDescriptorWrite : 0) |
                                                 (last ? 0 : kDescriptorNext)),
                           next});
  }
  if (indirect) {
    uint64_t table = Allocate(std::span(reinterpret_cast<const uint8_t*>(descriptors.data()),
                                        descriptors.size() * sizeof(Descriptor)));
    descriptors = {{table, static_cast<uint32_t>(buffers.size() * sizeof(Descriptor)),
                    kDescriptorIndirect, 0}};
  }
  for (size_t i = 0; i < indices.size(); ++i) SetDescriptor(queue, indices[i], descriptors[i]);
  uint16_t head = indices[0];
  q.chains[head] = std::move(indices);
  SetAvailable(queue, static_cast<uint16_t>(q.next_available & (q.layout.size - 1)), head);
  PublishAvailable(queue, static_cast<uint16_t>(q.next_available + 1));
  return head;
}

uint16_t FakeDriver::AddRequest(uint32_t queue, std::span<const uint8_t> out,
                                const std::vector<uint32_t>& in_sizes, std::vector<uint64_t>* in) {
  std::vector<Buffer> buffers;
  if (!out.empty()) buffers.push_back({Allocate(out), static_cast<uint32_t>(out.size()), false});
  if (in != nullptr) in->clear();
  for (uint32_t size : in_sizes) {
    buffers.push_back({Allocate(size), size, true});
    if (in != nullptr) in->push_back(buffers.back().address);
  }
  return Add(queue, buffers);
}

std::optional<FakeDriver::Used> FakeDriver::TakeUsed(uint32_t queue) {
  Queue& q = queues_[queue];
  auto index = memory_.ReadObject<uint16_t>(q.layout.device + 2);
  if (!index || *index == q.next_used) return std::nullopt;
  auto element = memory_.ReadObject<UsedElement>(q.layout.device + 4 +
                                                 8ull * (q.next_used & (q.layout.size - 1)));
  ++q.next_used;
  auto head = static_cast<uint16_t>(element->id);
  if (head < q.chains.size()) {
    q.free.insert(q.free.end(), q.chains[head].rbegin(), q.chains[head].rend());
    q.chains[head].clear();
  }
  return Used{head, element->length};
}

void FakeDriver::Pump() {
  // A handler may make another descriptor ready; a few rounds see to it.
  for (int round = 0; round < 4; ++round) (void)Must(loop_.RunOnce(0));
}

bool FakeDriver::PumpUntil(const std::function<bool()>& done, int milliseconds) {
  auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (!done()) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    if (left.count() < 0) return false;
    (void)Must(loop_.RunOnce(static_cast<int>(left.count()) + 1));
  }
  return true;
}

std::optional<FakeDriver::Used> FakeDriver::WaitUsed(uint32_t queue) {
  std::optional<Used> used;
  PumpUntil([&] { return (used = TakeUsed(queue)).has_value(); });
  return used;
}

uint64_t FakeDriver::TakeInterrupts() { return DrainEventFd(transport_->irq().eventfd()); }

Status FakeDriver::SaveAndRestore(
    const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make) {
  transport_->Quiesce();
  StateWriter writer;
  CUBE_TRY(transport_->Save(&writer));
  transport_.reset();
  MakeTransport(make);
  StateReader reader(writer.bytes(), "saved state");
  CUBE_TRY(transport_->Restore(&reader));
  CUBE_TRY(reader.End());
  transport_->Resume();
  return OkStatus();
}

}  // namespace cube::devices::virtio::fake
