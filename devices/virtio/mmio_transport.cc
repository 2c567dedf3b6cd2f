#include "devices/virtio/mmio_transport.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace cube::devices::virtio {
namespace {

// Saved form of the transport's registers; the queues follow, then the device's own state.
constexpr uint32_t kStateVersion = 1;
constexpr size_t kMaxDeviceState = 64 << 20;

struct TransportState {
  uint32_t version;
  uint32_t device_id;
  uint32_t device_version;
  uint32_t queue_count;
  uint64_t driver_features;
  uint32_t status;
  uint32_t device_features_select;
  uint32_t driver_features_select;
  uint32_t queue_select;
  uint32_t config_generation;
  uint32_t interrupt_status;
};

struct SavedQueue {
  QueueLayout layout;
  QueueState state;
  uint64_t kick_pending;
};

uint64_t WithHalf(uint64_t value, bool high, uint32_t half) {
  return high ? (value & 0xffffffff) | uint64_t{half} << 32 : (value & ~0xffffffffull) | half;
}

}  // namespace

MmioTransport::MmioTransport(std::string name, std::unique_ptr<Device> device,
                             const vmm::GuestMemory* memory, vmm::EventLoop* loop, vmm::IrqLine irq)
    : name_(std::move(name)),
      device_(std::move(device)),
      memory_(memory),
      loop_(loop),
      irq_(std::move(irq)) {
  uint32_t number = 0;
  for (uint16_t size : device_->queue_sizes()) {
    queues_.push_back(Virtqueue(memory, this, number++, size));
  }
  layouts_.resize(queues_.size());
  device_->Attach(this);
}

Result<std::unique_ptr<MmioTransport>> MmioTransport::Create(std::string name,
                                                             std::unique_ptr<Device> device,
                                                             const vmm::GuestMemory* memory,
                                                             vmm::EventLoop* loop,
                                                             vmm::IrqLine irq) {
  std::unique_ptr<MmioTransport> transport(
      new MmioTransport(std::move(name), std::move(device), memory, loop, std::move(irq)));
  CUBE_TRY(transport->WatchKicks());
  return transport;
}

MmioTransport::~MmioTransport() {
  for (const UniqueFd& kick : kicks_) loop_->Remove(kick.get());
  std::lock_guard lock(device_->mutex());
  // What is under way must not outlive the memory it goes to.
  if (Activated()) device_->Reset();
}

Status MmioTransport::WatchKicks() {
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    CUBE_ASSIGN(UniqueFd kick, NewEventFd());
    // Each signal wakes the loop once, without being taken: a system call less for each.
    CUBE_TRY(loop_->Add(kick.get(), EPOLLIN | EPOLLET, [this, i](uint32_t) { OnKick(i); }));
    kicks_.push_back(std::move(kick));
  }
  return OkStatus();
}

void MmioTransport::OnKick(uint32_t queue) {
  std::lock_guard lock(device_->mutex());
  ++kicks_taken_;
  if (Active() && queues_[queue].usable()) device_->ProcessQueue(queue);
}

// ---- registers

void MmioTransport::Read(uint64_t offset, std::span<uint8_t> data) {
  if (offset >= kMmioConfig) {
    std::lock_guard lock(device_->mutex());
    device_->ReadConfig(static_cast<uint32_t>(offset - kMmioConfig), data);
    return;
  }
  memset(data.data(), 0, data.size());
  uint32_t value = 0;
  if (offset == kMmioInterruptStatus) {
    value = interrupt_status_.load(std::memory_order_acquire);
  } else {
    std::lock_guard lock(device_->mutex());
    // 4.2.2.2: all registers are 32 bits wide and accessed so.
    if (data.size() != sizeof value || offset % sizeof value != 0) {
      DriverError();
      return;
    }
    value = ReadRegister(static_cast<uint32_t>(offset));
  }
  memcpy(data.data(), &value, std::min(data.size(), sizeof value));
}

void MmioTransport::Write(uint64_t offset, std::span<const uint8_t> data) {
  uint32_t value = 0;
  if (data.size() == sizeof value) memcpy(&value, data.data(), sizeof value);
  if (offset == kMmioQueueNotify && data.size() == sizeof value) {
    if (value < kicks_.size()) SignalEventFd(kicks_[value].get());
    return;
  }
  if (offset == kMmioInterruptAck && data.size() == sizeof value) {
    interrupt_status_.fetch_and(~value, std::memory_order_acq_rel);
    return;
  }
  std::lock_guard lock(device_->mutex());
  if (offset >= kMmioConfig) {
    if (!device_->WriteConfig(static_cast<uint32_t>(offset - kMmioConfig), data)) DriverError();
  } else if (data.size() == sizeof value && offset % sizeof value == 0) {
    WriteRegister(static_cast<uint32_t>(offset), value);
  } else {
    DriverError();
  }
}

uint64_t MmioTransport::OfferedFeatures() const {
  return device_->features() | kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirectDesc;
}

uint32_t MmioTransport::ReadRegister(uint32_t offset) {
  bool queue_selected = queue_select_ < queues_.size();
  switch (offset) {
    case kMmioMagicValue:
      return kMmioMagic;
    case kMmioVersion:
      return kMmioVersion2;
    case kMmioDeviceId:
      return device_->id();
    case kMmioVendorId:
      return kVendor;
    case kMmioDeviceFeatures:
      return device_features_select_ > 1
                 ? 0
                 : static_cast<uint32_t>(OfferedFeatures() >> (32 * device_features_select_));
    case kMmioQueueNumMax:
      return queue_selected ? queues_[queue_select_].max_size() : 0;
    case kMmioQueueReady:
      return queue_selected && queues_[queue_select_].ready() ? 1 : 0;
    case kMmioStatus:
      return status_;
    case kMmioConfigGeneration:
      return config_generation_;
    default:
      break;
  }
  // 4.2.2: a region of shared memory that does not exist has a length of -1.
  if (offset >= kMmioShmLenLow && offset <= kMmioShmBaseHigh) return 0xffffffff;
  DriverError();
  return 0;
}

void MmioTransport::WriteRegister(uint32_t offset, uint32_t value) {
  switch (offset) {
    case kMmioDeviceFeaturesSel:
      device_features_select_ = value;
      return;
    case kMmioDriverFeaturesSel:
      driver_features_select_ = value;
      return;
    case kMmioQueueSel:
      queue_select_ = value;
      return;
    case kMmioStatus:
      WriteStatus(value);
      return;
    case kMmioDriverFeatures:
      // 3.1.1: after DRIVER, before FEATURES_OK.
      if ((status_ & (kStatusDriver | kStatusFeaturesOk)) != kStatusDriver ||
          (driver_features_select_ > 1 && value != 0)) {
        DriverError();
      } else if (driver_features_select_ <= 1) {
        driver_features_ = WithHalf(driver_features_, driver_features_select_ == 1, value);
      }
      return;
    default:
      WriteQueueRegister(offset, value);
      return;
  }
}

void MmioTransport::WriteQueueRegister(uint32_t offset, uint32_t value) {
  // 4.2.3.2: a queue is set up between FEATURES_OK and DRIVER_OK, and while it is not ready.
  if (queue_select_ >= queues_.size() ||
      (status_ & (kStatusFeaturesOk | kStatusDriverOk | kStatusNeedsReset)) != kStatusFeaturesOk) {
    DriverError();
    return;
  }
  if (offset == kMmioQueueReady) {
    SetQueueReady(value);
    return;
  }
  if (queues_[queue_select_].ready()) {
    DriverError();
    return;
  }
  QueueLayout& layout = layouts_[queue_select_];
  bool high = (offset & 4) != 0;
  switch (offset) {
    case kMmioQueueNum:
      layout.size = value;
      return;
    case kMmioQueueDescLow:
    case kMmioQueueDescHigh:
      layout.descriptors = WithHalf(layout.descriptors, high, value);
      return;
    case kMmioQueueDriverLow:
    case kMmioQueueDriverHigh:
      layout.driver = WithHalf(layout.driver, high, value);
      return;
    case kMmioQueueDeviceLow:
    case kMmioQueueDeviceHigh:
      layout.device = WithHalf(layout.device, high, value);
      return;
    default:
      DriverError();
      return;
  }
}

void MmioTransport::SetQueueReady(uint32_t value) {
  Virtqueue& queue = queues_[queue_select_];
  if (value == 0) {
    queue.Reset();
  } else if (!queue.ready()) {
    Status enabled = queue.Enable(layouts_[queue_select_], driver_features_);
    if (!enabled.ok()) Fail(enabled.error());
  }
}

void MmioTransport::WriteStatus(uint32_t value) {
  if (value == 0) {
    ResetDevice();
    return;
  }
  // 2.1.1: bits are only ever added; DEVICE_NEEDS_RESET is the device's.
  uint32_t wanted = (value & ~kStatusNeedsReset) | (status_ & kStatusNeedsReset);
  if ((wanted & status_) != status_) {
    DriverError();
    return;
  }
  uint32_t added = wanted & ~status_;
  if ((added & kStatusFeaturesOk) != 0) {
    // 2.2.2: refused by not taking the bit.
    bool acceptable = (driver_features_ & ~OfferedFeatures()) == 0 &&
                      (driver_features_ & kFeatureVersion1) != 0 && (wanted & kStatusDriver) != 0;
    if (!acceptable) {
      DriverError();
      wanted &= ~(kStatusFeaturesOk | kStatusDriverOk);
      added &= ~(kStatusFeaturesOk | kStatusDriverOk);
    }
  }
  if ((added & kStatusDriverOk) != 0 && (wanted & kStatusFeaturesOk) == 0) {
    DriverError();
    wanted &= ~kStatusDriverOk;
    added &= ~kStatusDriverOk;
  }
  status_ = wanted;
  if ((added & kStatusDriverOk) != 0) device_->Activate(driver_features_);
}

void MmioTransport::ResetDevice() {
  if (Activated()) device_->Reset();
  for (Virtqueue& queue : queues_) queue.Reset();
  for (QueueLayout& layout : layouts_) layout = {};
  status_ = 0;
  driver_features_ = 0;
  device_features_select_ = driver_features_select_ = queue_select_ = 0;
  interrupt_status_.store(0, std::memory_order_release);
  failure_.clear();
}

// ---- for queues and device

void MmioTransport::QueueUsed() {
  interrupt_status_.fetch_or(kInterruptUsedBuffer, std::memory_order_acq_rel);
  interrupts_.fetch_add(1, std::memory_order_relaxed);
  irq_.Trigger();
}

void MmioTransport::ConfigChanged() {
  ++config_generation_;
  if ((status_ & kStatusDriverOk) == 0) return;
  interrupt_status_.fetch_or(kInterruptConfigChange, std::memory_order_acq_rel);
  interrupts_.fetch_add(1, std::memory_order_relaxed);
  irq_.Trigger();
}

void MmioTransport::Fail(const Error& error) {
  if ((status_ & kStatusNeedsReset) != 0) return;
  status_ |= kStatusNeedsReset;
  failure_ = name_ + ": " + error.message();
  // 2.1.2: with DRIVER_OK set, the driver is told by a change of configuration.
  ConfigChanged();
}

std::string MmioTransport::failure() {
  std::lock_guard lock(device_->mutex());
  return failure_;
}

void MmioTransport::Metrics(const Device::Count& count) {
  std::lock_guard lock(device_->mutex());
  count("kicks", kicks_taken_);
  count("interrupts", interrupts_.load(std::memory_order_relaxed));
  count("driver_errors", driver_errors_);
  device_->Metrics(count);
}

// ---- saved state

void MmioTransport::Quiesce() {
  std::lock_guard lock(device_->mutex());
  if (Activated()) device_->Quiesce();
}

void MmioTransport::Resume() {
  std::lock_guard lock(device_->mutex());
  // An interrupt that was not acknowledged may have been on its way to the interrupt controllers
  // when their state was taken, or have come before they got it: an edge, which nobody would
  // repeat.
  if (interrupt_status_.load(std::memory_order_acquire) != 0) irq_.Trigger();
  if (Activated()) device_->Resume();
}

void MmioTransport::Reset() {
  std::lock_guard lock(device_->mutex());
  ResetDevice();
  for (const UniqueFd& kick : kicks_) DrainEventFd(kick.get());
}

Status MmioTransport::Save(StateWriter* state) {
  std::lock_guard lock(device_->mutex());
  TransportState saved = {};
  saved.version = kStateVersion;
  saved.device_id = device_->id();
  saved.device_version = device_->state_version();
  saved.queue_count = queue_count();
  saved.driver_features = driver_features_;
  saved.status = status_;
  saved.device_features_select = device_features_select_;
  saved.driver_features_select = driver_features_select_;
  saved.queue_select = queue_select_;
  saved.config_generation = config_generation_;
  saved.interrupt_status = interrupt_status_.load(std::memory_order_acquire);
  state->Put(saved);
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    SavedQueue queue = {};
    queue.layout = layouts_[i];
    auto queue_state = queues_[i].Save();
    if (!queue_state.ok()) return Error(queue_state.error()).Wrap(name_);
    queue.state = *queue_state;
    // Taken, so that it can be said; given back, for this process goes on.
    if (DrainEventFd(kicks_[i].get()) != 0) {
      queue.kick_pending = 1;
      SignalEventFd(kicks_[i].get());
    }
    state->Put(queue);
  }
  StateWriter own;
  Status status = device_->Save(&own);
  if (!status.ok()) return Error(status.error()).Wrap(name_);
  state->PutBytes(own.bytes());
  return OkStatus();
}

Status MmioTransport::Restore(StateReader* state) {
  std::lock_guard lock(device_->mutex());
  TransportState saved;
  CUBE_TRY(state->Get(&saved));
  if (saved.version != kStateVersion) {
    return Errorf("%s: transport state of version %u, this is version %u", name_.c_str(),
                  saved.version, kStateVersion);
  }
  if (saved.device_id != device_->id() || saved.queue_count != queue_count()) {
    return Errorf("%s: saved from device type %u with %u queues, this is type %u with %u",
                  name_.c_str(), saved.device_id, saved.queue_count, device_->id(), queue_count());
  }
  if (saved.device_version != device_->state_version()) {
    return Errorf("%s: device state of version %u, this is version %u", name_.c_str(),
                  saved.device_version, device_->state_version());
  }
  // What was not agreed upon may be anything: it means nothing until it has been checked.
  constexpr uint32_t kAgreed = kStatusFeaturesOk | kStatusDriverOk;
  if ((saved.status & kAgreed) != 0 && (saved.driver_features & ~OfferedFeatures()) != 0) {
    return Errorf("%s: saved with features %#llx, %#llx are offered here", name_.c_str(),
                  static_cast<unsigned long long>(saved.driver_features),
                  static_cast<unsigned long long>(OfferedFeatures()));
  }
  std::vector<SavedQueue> queues(queues_.size());
  for (SavedQueue& queue : queues) {
    CUBE_TRY(state->Get(&queue));
    if (queue.state.ready != 0 && (saved.status & kAgreed) == 0) {
      return Errorf("%s: a queue is ready in status %#x", name_.c_str(), saved.status);
    }
  }
  CUBE_ASSIGN(std::span<const uint8_t> own, state->GetBytes(kMaxDeviceState));
  for (uint32_t i = 0; i < queues.size(); ++i) {
    layouts_[i] = queues[i].layout;
    Status restored = queues_[i].Restore(queues[i].state, saved.driver_features);
    if (!restored.ok()) return Error(restored.error()).Wrap(name_);
  }
  driver_features_ = saved.driver_features;
  status_ = saved.status;
  device_features_select_ = saved.device_features_select;
  driver_features_select_ = saved.driver_features_select;
  queue_select_ = saved.queue_select;
  config_generation_ = saved.config_generation;
  interrupt_status_.store(saved.interrupt_status, std::memory_order_release);
  if (Activated()) device_->Activate(driver_features_);
  StateReader reader(own, name_ + "'s state");
  CUBE_TRY(device_->Load(&reader));
  CUBE_TRY(reader.End());
  for (uint32_t i = 0; i < queues.size(); ++i) {
    if (queues[i].kick_pending != 0) SignalEventFd(kicks_[i].get());
  }
  return OkStatus();
}

}  // namespace cube::devices::virtio
