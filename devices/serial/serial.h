#ifndef CUBE_DEVICES_SERIAL_SERIAL_H_
#define CUBE_DEVICES_SERIAL_SERIAL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "base/result.h"
#include "base/state_io.h"
#include "vmm/bus.h"
#include "vmm/irq_line.h"

namespace cube::devices {

// A 16550A UART (PC16550D data sheet) of 8 ports, as Linux's 8250 driver uses it: transmission is
// instant, the receive FIFO is fed by the host. Modem lines say "connected". Thread-safe.
class Serial : public vmm::BusDevice {
 public:
  static constexpr uint64_t kSize = 8;
  // The receive queue's bound: what is offered beyond it is left to the caller.
  static constexpr size_t kReceiveLimit = 1024;

  // `output` gets each byte the guest sends, on the vCPU's thread and under the device's lock: it
  // must be quick and must not call back. `irq` gets an edge whenever an interrupt becomes due.
  Serial(vmm::IrqLine irq, std::function<void(uint8_t)> output);

  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  // Puts bytes into the receive queue; returns how many it took.
  size_t Receive(std::span<const uint8_t> bytes);
  // Bytes the guest has not taken yet.
  size_t ReceiveBacklog() const;

  // All registers and what was received; Load() changes nothing if it fails.
  static constexpr uint32_t kStateVersion = 1;
  void Save(StateWriter* state) const;
  Status Load(StateReader* state);
  // The guest goes on, here or where the state was loaded: interrupts reach it from here on.
  void Resume();

  const vmm::IrqLine& irq() const { return irq_; }

 private:
  uint8_t ReadRegister(uint64_t offset);
  void WriteRegister(uint64_t offset, uint8_t value);
  // The interrupt identification register's cause bits, 1 for none (data sheet, table IV).
  uint8_t Cause() const;
  void UpdateInterrupt();

  mutable std::mutex mutex_;
  vmm::IrqLine irq_;
  std::function<void(uint8_t)> output_;
  std::deque<uint8_t> received_;
  uint8_t interrupt_enable_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
  uint8_t divisor_low_ = 12;  // 9600 baud
  uint8_t divisor_high_ = 0;
  bool fifo_enabled_ = false;
  bool transmit_empty_pending_ = false;
  bool asserted_ = false;
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_SERIAL_SERIAL_H_
