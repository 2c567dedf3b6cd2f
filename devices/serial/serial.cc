#include "devices/serial/serial.h"

#include <algorithm>

namespace cube::devices {
namespace {

// Registers, by offset (PC16550D, table II).
constexpr uint64_t kData = 0;
constexpr uint64_t kInterruptEnable = 1;
constexpr uint64_t kInterruptId = 2;  // FIFO control when written
constexpr uint64_t kLineControl = 3;
constexpr uint64_t kModemControl = 4;
constexpr uint64_t kLineStatus = 5;
constexpr uint64_t kModemStatus = 6;
constexpr uint64_t kScratch = 7;

constexpr uint8_t kEnableReceived = 0x01;
constexpr uint8_t kEnableTransmitEmpty = 0x02;
constexpr uint8_t kCauseNone = 0x01;
constexpr uint8_t kCauseTransmitEmpty = 0x02;
constexpr uint8_t kCauseReceived = 0x04;
constexpr uint8_t kFifosEnabled = 0xc0;
constexpr uint8_t kFifoEnable = 0x01;
constexpr uint8_t kFifoClearReceive = 0x02;
constexpr uint8_t kDivisorLatch = 0x80;
constexpr uint8_t kLoopback = 0x10;
constexpr uint8_t kStatusReceived = 0x01;
constexpr uint8_t kStatusTransmitEmpty = 0x60;  // holding register and shifter
constexpr uint8_t kModemConnected = 0xb0;       // carrier, data set ready, clear to send

}  // namespace

Serial::Serial(vmm::IrqLine irq, std::function<void(uint8_t)> output)
    : irq_(std::move(irq)), output_(std::move(output)) {}

void Serial::Read(uint64_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < data.size(); ++i) data[i] = ReadRegister(offset + i);
}

void Serial::Write(uint64_t offset, std::span<const uint8_t> data) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < data.size(); ++i) WriteRegister(offset + i, data[i]);
}

size_t Serial::Receive(std::span<const uint8_t> bytes) {
  std::lock_guard lock(mutex_);
  size_t taken = std::min(bytes.size(), kReceiveLimit - received_.size());
  received_.insert(received_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
  UpdateInterrupt();
  return taken;
}

size_t Serial::ReceiveBacklog() const {
  std::lock_guard lock(mutex_);
  return received_.size();
}

namespace {

struct SavedRegisters {
  uint8_t interrupt_enable, line_control, modem_control, scratch;
  uint8_t divisor_low, divisor_high, fifo_enabled, transmit_empty_pending;
  uint8_t asserted;
};

}  // namespace

void Serial::Save(StateWriter* state) const {
  std::lock_guard lock(mutex_);
  state->Put(kStateVersion);
  state->Put(SavedRegisters{interrupt_enable_, line_control_, modem_control_, scratch_,
                            divisor_low_, divisor_high_, fifo_enabled_, transmit_empty_pending_,
                            asserted_});
  state->PutArray(std::vector<uint8_t>(received_.begin(), received_.end()));
}

Status Serial::Load(StateReader* state) {
  CUBE_TRY(state->GetVersion(kStateVersion));
  SavedRegisters saved;
  CUBE_TRY(state->Get(&saved));
  std::vector<uint8_t> received;
  CUBE_TRY(state->GetArray(kReceiveLimit, &received));
  std::lock_guard lock(mutex_);
  interrupt_enable_ = saved.interrupt_enable;
  line_control_ = saved.line_control;
  modem_control_ = saved.modem_control;
  scratch_ = saved.scratch;
  divisor_low_ = saved.divisor_low;
  divisor_high_ = saved.divisor_high;
  fifo_enabled_ = saved.fifo_enabled != 0;
  transmit_empty_pending_ = saved.transmit_empty_pending != 0;
  asserted_ = saved.asserted != 0;
  received_.assign(received.begin(), received.end());
  return OkStatus();
}

void Serial::Resume() {
  std::lock_guard lock(mutex_);
  // The edge may have been on its way to the interrupt controllers when their state was taken. No
  // other comes while the line is up; a driver that has nothing to do for it passes it over.
  if (asserted_) irq_.Trigger();
}

uint8_t Serial::Cause() const {
  if ((interrupt_enable_ & kEnableReceived) != 0 && !received_.empty()) return kCauseReceived;
  if ((interrupt_enable_ & kEnableTransmitEmpty) != 0 && transmit_empty_pending_) {
    return kCauseTransmitEmpty;
  }
  return kCauseNone;
}

void Serial::UpdateInterrupt() {
  // The device's line is a level and the guest's input takes edges: only a rise is passed on. A
  // driver therefore serves every cause before it leaves its handler, as for any ISA UART.
  bool asserted = Cause() != kCauseNone;
  if (asserted && !asserted_) irq_.Trigger();
  asserted_ = asserted;
}

uint8_t Serial::ReadRegister(uint64_t offset) {
  switch (offset) {
    case kData: {
      if ((line_control_ & kDivisorLatch) != 0) return divisor_low_;
      if (received_.empty()) return 0;
      uint8_t byte = received_.front();
      received_.pop_front();
      UpdateInterrupt();
      return byte;
    }
    case kInterruptEnable:
      return (line_control_ & kDivisorLatch) != 0 ? divisor_high_ : interrupt_enable_;
    case kInterruptId: {
      uint8_t cause = Cause();
      // Reading the identification clears a transmit cause (table IV).
      if (cause == kCauseTransmitEmpty) transmit_empty_pending_ = false;
      UpdateInterrupt();
      return static_cast<uint8_t>(cause | (fifo_enabled_ ? kFifosEnabled : 0));
    }
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return static_cast<uint8_t>(kStatusTransmitEmpty | (received_.empty() ? 0 : kStatusReceived));
    case kModemStatus:
      // In loop-back the outputs feed the inputs (data sheet, 8.6.7); drivers probe with it.
      if ((modem_control_ & kLoopback) != 0) {
        return static_cast<uint8_t>((modem_control_ & 0x0c) << 4 | (modem_control_ & 0x02) << 3 |
                                    (modem_control_ & 0x01) << 5);
      }
      return kModemConnected;
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Serial::WriteRegister(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kData:
      if ((line_control_ & kDivisorLatch) != 0) {
        divisor_low_ = value;
        return;
      }
      if ((modem_control_ & kLoopback) != 0) {
        if (received_.size() < kReceiveLimit) received_.push_back(value);
      } else {
        output_(value);
      }
      // The transmitter was full for no time at all: the line fell and rises again.
      transmit_empty_pending_ = false;
      UpdateInterrupt();
      transmit_empty_pending_ = true;
      UpdateInterrupt();
      return;
    case kInterruptEnable: {
      if ((line_control_ & kDivisorLatch) != 0) {
        divisor_high_ = value;
        return;
      }
      // Enabling the transmit interrupt with an empty transmitter raises it at once.
      if ((value & kEnableTransmitEmpty) != 0 && (interrupt_enable_ & kEnableTransmitEmpty) == 0) {
        transmit_empty_pending_ = true;
      }
      interrupt_enable_ = value & 0x0f;
      UpdateInterrupt();
      return;
    }
    case kInterruptId:
      fifo_enabled_ = (value & kFifoEnable) != 0;
      if ((value & kFifoClearReceive) != 0) received_.clear();
      UpdateInterrupt();
      return;
    case kLineControl:
      line_control_ = value;
      return;
    case kModemControl:
      modem_control_ = value & 0x1f;
      return;
    case kScratch:
      scratch_ = value;
      return;
    default:
      return;
  }
}

}  // namespace cube::devices
