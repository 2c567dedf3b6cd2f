#include "vmm/assist/extended_state.h"

#include <gtest/gtest.h>

#include <cstring>

#include "vmm/assist/micro_guest_fixture.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

using testing::Code;

// Fills every extended register of the guest with a pattern and returns the XSAVE area of it.
class ExtendedStateTest : public testing::MicroGuestTest {
 protected:
  void SetUp() override {
    MicroGuestTest::SetUp();
    if (guest_ == nullptr) return;
    layout_ = XsaveLayout::FromCpuid(guest_->cpuid());
    xcr0_ = guest_->vcpu().GetXcrs().value().xcrs[0].value;
    area_.resize(guest_->vcpu().xsave_size());
  }
  void Fill(uint8_t seed) {
    ASSERT_TRUE(guest_->vcpu().GetXsave(area_).ok());
    auto pattern = [&](size_t from, size_t size) {
      for (size_t i = from; i < from + size; ++i) area_[i] = static_cast<uint8_t>(seed + i * 7);
    };
    for (size_t reg = 0; reg < 8; ++reg) pattern(32 + reg * 16, 10);
    pattern(160, 256);
    for (int i = 2; i < 63; ++i) {
      if ((xcr0_ >> i & 1) != 0 && i != 9) pattern(layout_.components[i].offset, layout_.components[i].size);
    }
    area_[4] = 0xff;
    memcpy(area_.data() + 512, &xcr0_, 8);
    ASSERT_TRUE(guest_->vcpu().SetXsave(area_).ok());
    ASSERT_TRUE(guest_->vcpu().GetXsave(area_).ok());
  }
  std::vector<uint8_t> State() {
    std::vector<uint8_t> now(area_.size());
    EXPECT_TRUE(guest_->vcpu().GetXsave(now).ok());
    return now;
  }
  static void Everything(kvm_regs& r) {
    r.rsi = kData;
    r.rax = r.rdx = 0xffffffff;
  }

  XsaveLayout layout_;
  uint64_t xcr0_ = 0;
  std::vector<uint8_t> area_;
};

// Each way to save, then another state, then each way to restore: every byte must come back.
TEST_F(ExtendedStateTest, SavesAndRestoresEveryRegister) {
  struct Pair {
    const char* name;
    Code save, restore;
  };
  const Pair pairs[] = {
      {"xsave, xrstor", {0x48, 0x0f, 0xae, 0x26}, {0x48, 0x0f, 0xae, 0x2e}},
      {"xsaveopt, xrstor", {0x48, 0x0f, 0xae, 0x36}, {0x48, 0x0f, 0xae, 0x2e}},
      {"xsavec, xrstor", {0x48, 0x0f, 0xc7, 0x26}, {0x48, 0x0f, 0xae, 0x2e}},
      {"xsaves, xrstors", {0x48, 0x0f, 0xc7, 0x2e}, {0x48, 0x0f, 0xc7, 0x1e}},
  };
  for (const Pair& pair : pairs) {
    SCOPED_TRACE(pair.name);
    std::vector<uint8_t> zeros(8192);
    guest_->memory().Write(kData, zeros);
    Fill(11);
    std::vector<uint8_t> expected = State();
    EXPECT_DONE(Run(pair.save, Everything));
    EXPECT_EQ(State(), expected);
    Fill(99);
    EXPECT_NE(State(), expected);
    EXPECT_DONE(Run(pair.restore, Everything));
    EXPECT_EQ(State(), expected);
  }
}

TEST_F(ExtendedStateTest, StandardFormatIsWhatKvmHolds) {
  Fill(42);
  std::vector<uint8_t> expected = State();
  EXPECT_DONE(Run({0x48, 0x0f, 0xae, 0x26}, Everything));
  std::vector<uint8_t> saved(expected.size());
  guest_->memory().Read(kData, saved);
  for (int i = 2; i < 63; ++i) {
    if ((xcr0_ >> i & 1) == 0) continue;
    auto [offset, size, aligned] = layout_.components[i];
    EXPECT_EQ(memcmp(saved.data() + offset, expected.data() + offset, size), 0) << "component " << i;
  }
  EXPECT_EQ(memcmp(saved.data() + 160, expected.data() + 160, 256), 0);
}

TEST_F(ExtendedStateTest, ComponentsNotNamedAreLeftAlone) {
  Fill(5);
  EXPECT_DONE(Run({0x48, 0x0f, 0xae, 0x26}, Everything));
  Fill(77);
  std::vector<uint8_t> before = State();
  // xrstor of SSE only
  EXPECT_DONE(Run({0x48, 0x0f, 0xae, 0x2e}, [](kvm_regs& r) { r.rsi = kData; r.rax = 2; }));
  std::vector<uint8_t> after = State();
  EXPECT_EQ(memcmp(after.data() + 32, before.data() + 32, 128), 0);
  EXPECT_NE(memcmp(after.data() + 160, before.data() + 160, 256), 0);
  EXPECT_EQ(memcmp(after.data() + 576, before.data() + 576, layout_.components[2].size), 0);
}

TEST_F(ExtendedStateTest, MalformedAreasAndAddressesFault) {
  const Code xrstor = {0x48, 0x0f, 0xae, 0x2e};
  std::vector<uint8_t> zeros(8192);
  guest_->memory().Write(kData, zeros);
  auto exit = Run(xrstor, [](kvm_regs& r) { Everything(r); r.rsi += 8; });
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  guest_->Poke<uint64_t>(kData + 512, 1ull << 40);  // a component that is not enabled
  exit = Run(xrstor, Everything);
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  guest_->Poke<uint64_t>(kData + 512, 1);
  guest_->Poke<uint64_t>(kData + 520, 1);  // standard format with bits in XCOMP_BV
  exit = Run(xrstor, Everything);
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  exit = Run({0x48, 0x0f, 0xae, 0x26}, [](kvm_regs& r) { Everything(r); r.rsi = MicroGuest::kUnmappedPage; });
  EXPECT_EQ(exit.vector, kVectorPageFault);
}

TEST_F(ExtendedStateTest, X87IsInitialised) {
  Fill(3);
  EXPECT_DONE(Run({0xdb, 0xe3}));  // fninit
  std::vector<uint8_t> state = State();
  EXPECT_EQ(state[0] | state[1] << 8, 0x37f);
  EXPECT_EQ(state[4], 0);
}

TEST_F(ExtendedStateTest, X87ExceptionsAreCleared) {
  ASSERT_TRUE(guest_->vcpu().GetXsave(area_).ok());
  area_[2] = 0x81;  // an invalid operation, summarized
  area_[3] = 0xc5;  // busy, three condition codes
  area_[512] |= 1;
  ASSERT_TRUE(guest_->vcpu().SetXsave(area_).ok());
  EXPECT_DONE(Run({0xdb, 0xe2}));  // fnclex
  std::vector<uint8_t> state = State();
  EXPECT_EQ(state[2], 0);
  EXPECT_EQ(state[3], 0x45);
}

// The area runs into a page that is not there: #PF names it, and neither the area nor the registers
// have changed. Signal frames on a stack that has yet to grow are met like this.
TEST_F(ExtendedStateTest, AreasThatCrossIntoAnUnmappedPage) {
  const struct {
    const char* name;
    Code code;
    bool write;
  } cases[] = {
      {"xsave", {0x48, 0x0f, 0xae, 0x26}, true},    {"xsaveopt", {0x48, 0x0f, 0xae, 0x36}, true},
      {"xsavec", {0x48, 0x0f, 0xc7, 0x26}, true},   {"xsaves", {0x48, 0x0f, 0xc7, 0x2e}, true},
      {"xrstor", {0x48, 0x0f, 0xae, 0x2e}, false},  {"xrstors", {0x48, 0x0f, 0xc7, 0x1e}, false},
  };
  for (const auto& c : cases) {
    // Cut in the legacy region, before the header, and before the first of the other components.
    for (uint64_t cut : {64, 192, 512, 576}) {
      SCOPED_TRACE(c.name);
      SCOPED_TRACE(cut);
      const uint64_t start = MicroGuest::kUnmappedPage - cut;
      std::vector<uint8_t> before(cut, 0xa5);
      if (cut == 576) {
        // The header, of the right format, with every component in use.
        memset(before.data() + 512, 0, 64);
        memset(before.data() + 24, 0, 8);
        memcpy(before.data() + 512, &xcr0_, 8);
        uint64_t compacted = xcr0_ | 1ull << 63;
        if (c.code[3] == 0x1e) memcpy(before.data() + 520, &compacted, 8);
      }
      guest_->memory().Write(start, before);
      Fill(17);
      std::vector<uint8_t> state = State();
      EXPECT_EXCEPTION(Run(c.code, [&](kvm_regs& r) { Everything(r); r.rsi = start; }),
                       kVectorPageFault);
      EXPECT_EQ(sregs().cr2 / 4096, MicroGuest::kUnmappedPage / 4096);
      EXPECT_EQ(Frame(0), c.write ? kFaultWrite : 0);
      EXPECT_EQ(Frame(1), MicroGuest::kKernelCode);
      std::vector<uint8_t> after(cut);
      guest_->memory().Read(start, after);
      EXPECT_EQ(after, before);
      EXPECT_EQ(State(), state);
    }
  }
}

TEST_F(ExtendedStateTest, ReadOnlyAreas) {
  const Code saves[] = {{0x48, 0x0f, 0xae, 0x26}, {0x48, 0x0f, 0xc7, 0x26}};
  for (const Code& code : saves) {
    Fill(17);
    EXPECT_EXCEPTION(
        Run(code, [](kvm_regs& r) { Everything(r); r.rsi = MicroGuest::kReadOnlyPage - 576; }),
        kVectorPageFault);
    EXPECT_EQ(Frame(0), kFaultPresent | kFaultWrite);
    EXPECT_EQ(sregs().cr2, MicroGuest::kReadOnlyPage);
  }
}

}  // namespace
}  // namespace cube::vmm
