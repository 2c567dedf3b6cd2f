#include "vmm/loader/mp_table.h"

#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

#include "vmm/loader/placement.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

// MultiProcessor Specification 1.4, chapter 4.
struct FloatingPointer {
  char signature[4];
  uint32_t table_address;
  uint8_t length;  // of this structure, in units of 16 bytes
  uint8_t revision;
  uint8_t checksum;
  uint8_t features[5];
};
static_assert(sizeof(FloatingPointer) == 16);

struct TableHeader {
  char signature[4];
  uint16_t length;
  uint8_t revision;
  uint8_t checksum;
  char oem[8];
  char product[12];
  uint32_t oem_table;
  uint16_t oem_table_size;
  uint16_t entry_count;
  uint32_t local_apic_address;
  uint16_t extended_length;
  uint8_t extended_checksum;
  uint8_t reserved;
};
static_assert(sizeof(TableHeader) == 44);

struct Processor {
  uint8_t entry_type = 0;
  uint8_t apic_id;
  uint8_t apic_version;
  uint8_t flags;
  uint32_t signature;
  uint32_t features;
  uint32_t reserved[2] = {};
};
static_assert(sizeof(Processor) == 20);

struct Bus {
  uint8_t entry_type = 1;
  uint8_t id;
  char type[6];
};
static_assert(sizeof(Bus) == 8);

struct IoApic {
  uint8_t entry_type = 2;
  uint8_t id;
  uint8_t version;
  uint8_t flags;
  uint32_t address;
};
static_assert(sizeof(IoApic) == 8);

// For an I/O APIC (type 3) or the local APICs (type 4).
struct Interrupt {
  uint8_t entry_type;
  uint8_t interrupt_type;
  uint16_t flags = 0;  // polarity and trigger mode as usual on the bus
  uint8_t source_bus;
  uint8_t source_irq;
  uint8_t apic_id;
  uint8_t pin;
};
static_assert(sizeof(Interrupt) == 8);

constexpr uint8_t kRevision = 4;  // 1.4
constexpr uint8_t kIsaBus = 0;
constexpr uint8_t kIsaInterrupts = 16;
constexpr uint8_t kTimerIrq = 0;
constexpr uint8_t kCascadeIrq = 2;
constexpr uint8_t kLocalApicVersion = 0x14;
constexpr uint8_t kIoApicVersion = 0x11;
constexpr uint8_t kEnabled = 1 << 0;
constexpr uint8_t kBootProcessor = 1 << 1;
constexpr uint32_t kFamily6 = 0x600;
constexpr uint32_t kFeaturesFpuAndApic = 0x201;
constexpr uint8_t kIoInterrupt = 3;
constexpr uint8_t kLocalInterrupt = 4;
constexpr uint8_t kVectored = 0;
constexpr uint8_t kNmi = 1;
constexpr uint8_t kExternal = 3;
constexpr uint8_t kAllLocalApics = 0xff;

constexpr size_t kMaxSize = sizeof(FloatingPointer) + sizeof(TableHeader) +
                            kMaxCpus * sizeof(Processor) + sizeof(Bus) + sizeof(IoApic) +
                            (kIsaInterrupts - 1 + 2) * sizeof(Interrupt);
static_assert(kMaxSize <= kMpTableMaxSize);

// What makes the sum of `bytes` 0 if it replaces a zero among them.
uint8_t Checksum(std::span<const uint8_t> bytes) {
  uint8_t sum = 0;
  for (uint8_t byte : bytes) sum = static_cast<uint8_t>(sum + byte);
  return static_cast<uint8_t>(-sum);
}

// Puts entries behind the two headers; kMaxSize is room for all of them.
class TableBuilder {
 public:
  template <typename T>
  void Add(const T& entry) {
    static_assert(std::is_trivially_copyable_v<T>);
    memcpy(bytes_ + size_, &entry, sizeof entry);
    size_ += sizeof entry;
    ++entries_;
  }

  std::span<const uint8_t> Finish() {
    TableHeader header = {};
    memcpy(header.signature, "PCMP", sizeof header.signature);
    header.length = static_cast<uint16_t>(size_ - sizeof(FloatingPointer));
    header.revision = kRevision;
    memcpy(header.oem, "CUBE    ", sizeof header.oem);
    memcpy(header.product, "MICROVM     ", sizeof header.product);
    header.entry_count = entries_;
    header.local_apic_address = kLocalApicAddress;
    uint8_t* table = bytes_ + sizeof(FloatingPointer);
    memcpy(table, &header, sizeof header);
    table[offsetof(TableHeader, checksum)] = Checksum({table, header.length});

    FloatingPointer pointer = {};
    memcpy(pointer.signature, "_MP_", sizeof pointer.signature);
    pointer.table_address = kMpTableAddress + sizeof pointer;
    pointer.length = sizeof pointer / 16;
    pointer.revision = kRevision;
    memcpy(bytes_, &pointer, sizeof pointer);
    bytes_[offsetof(FloatingPointer, checksum)] = Checksum({bytes_, sizeof pointer});
    return {bytes_, size_};
  }

 private:
  uint8_t bytes_[kMaxSize] = {};
  size_t size_ = sizeof(FloatingPointer) + sizeof(TableHeader);
  uint16_t entries_ = 0;
};

}  // namespace

Status WriteMpTable(uint32_t cpus, const GuestMemory& memory) {
  if (cpus < 1 || cpus > kMaxCpus) {
    return Errorf("%u CPUs, between 1 and %u are possible", cpus, kMaxCpus);
  }
  TableBuilder table;
  for (uint32_t i = 0; i < cpus; ++i) {
    table.Add(Processor{.apic_id = static_cast<uint8_t>(i),
                        .apic_version = kLocalApicVersion,
                        .flags = static_cast<uint8_t>(kEnabled | (i == 0 ? kBootProcessor : 0)),
                        .signature = kFamily6,
                        .features = kFeaturesFpuAndApic});
  }
  table.Add(Bus{.id = kIsaBus, .type = {'I', 'S', 'A', ' ', ' ', ' '}});
  const uint8_t io_apic_id = static_cast<uint8_t>(cpus);
  table.Add(IoApic{.id = io_apic_id,
                   .version = kIoApicVersion,
                   .flags = kEnabled,
                   .address = kIoApicAddress});
  for (uint8_t irq = 0; irq < kIsaInterrupts; ++irq) {
    // KVM's timer raises pin 2, so nothing else may: on a PC ISA interrupt 2 is the second PIC.
    if (irq == kCascadeIrq) continue;
    table.Add(Interrupt{.entry_type = kIoInterrupt,
                        .interrupt_type = kVectored,
                        .source_bus = kIsaBus,
                        .source_irq = irq,
                        .apic_id = io_apic_id,
                        .pin = irq == kTimerIrq ? kCascadeIrq : irq});
  }
  // The PICs reach the boot CPU by LINT0, and NMI every CPU by LINT1, as on any PC.
  table.Add(Interrupt{.entry_type = kLocalInterrupt,
                      .interrupt_type = kExternal,
                      .source_bus = kIsaBus,
                      .source_irq = 0,
                      .apic_id = 0,
                      .pin = 0});
  table.Add(Interrupt{.entry_type = kLocalInterrupt,
                      .interrupt_type = kNmi,
                      .source_bus = kIsaBus,
                      .source_irq = 0,
                      .apic_id = kAllLocalApics,
                      .pin = 1});
  return PlaceBytes(memory, kMpTableAddress, table.Finish(), "MP table");
}

}  // namespace cube::vmm
