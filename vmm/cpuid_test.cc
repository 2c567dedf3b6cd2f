#include "vmm/cpuid.h"

#include <gtest/gtest.h>

namespace cube::vmm {
namespace {

kvm_cpuid_entry2 Leaf(uint32_t function, uint32_t index = 0) {
  kvm_cpuid_entry2 entry = {};
  entry.function = function;
  entry.index = index;
  entry.eax = entry.ebx = entry.ecx = entry.edx = 0xffffffff;
  return entry;
}

kvm_cpuid_entry2 Shape(const kvm_cpuid_entry2& entry, const CpuidOptions& options) {
  auto shaped = ShapeCpuid({&entry, 1}, options);
  EXPECT_EQ(shaped.size(), 1u);
  return shaped.at(0);
}

TEST(Cpuid, EachVcpuHasItsApicIdAndTheCount) {
  kvm_cpuid_entry2 leaf = Shape(Leaf(1), {.vcpu_id = 3, .vcpu_count = 4});
  EXPECT_EQ(leaf.ebx >> 24, 3u);
  EXPECT_EQ(leaf.ebx >> 16 & 0xff, 4u);
  EXPECT_TRUE(leaf.edx & 1u << 28);
  EXPECT_FALSE(Shape(Leaf(1), {}).edx & 1u << 28);
}

TEST(Cpuid, WhatTheVmmDoesNotStandBehindIsHidden) {
  CpuidOptions options;
  EXPECT_FALSE(Shape(Leaf(1), options).ecx & (1u << 3 | 1u << 5));
  EXPECT_TRUE(Shape(Leaf(1), options).ecx & 1u << 31);
  EXPECT_FALSE(Shape(Leaf(7), options).ecx & (1u << 3 | 1u << 4 | 1u << 16));
  EXPECT_EQ(Shape(Leaf(0xa), options).eax, 0u);
  EXPECT_EQ(Shape(Leaf(0xd, 1), options).ecx, 0u);
  EXPECT_EQ(Shape(Leaf(0xd, 2), options).ecx, 0xffffffffu);
  EXPECT_FALSE(Shape(Leaf(0x80000001), options).ecx & 1u << 2);
  kvm_cpuid_entry2 svm = Leaf(0x8000000a);
  EXPECT_TRUE(ShapeCpuid({&svm, 1}, options).empty());
}

TEST(Cpuid, HypercallsAreHiddenOnRequestAndTheClockStays) {
  EXPECT_EQ(Shape(Leaf(0x40000001), {.hide_hypercalls = true}).eax, 0x0100000bu);
  EXPECT_EQ(Shape(Leaf(0x40000001), {}).eax, 0xffffffffu);
}

TEST(Cpuid, TopologyIsOnePackageOfSingleThreadedCores) {
  kvm_cpuid_entry2 given[] = {Leaf(0xb, 0), Leaf(0xb, 1), Leaf(0x1f, 0)};
  auto shaped = ShapeCpuid(given, {.vcpu_id = 5, .vcpu_count = 6});
  ASSERT_EQ(shaped.size(), 3u);
  EXPECT_EQ(shaped[0].ebx, 1u);
  EXPECT_EQ(shaped[0].ecx, 0x100u);
  EXPECT_EQ(shaped[1].eax, 3u);
  EXPECT_EQ(shaped[1].ebx, 6u);
  EXPECT_EQ(shaped[1].ecx, 0x201u);
  EXPECT_EQ(shaped[1].edx, 5u);
  EXPECT_EQ(shaped[2].ecx, 2u);
}

TEST(Cpuid, TheDeadlineTimerIsAddedWhereKvmHasIt) {
  kvm_cpuid_entry2 leaf = Leaf(1);
  leaf.ecx = 0;
  EXPECT_TRUE(Shape(leaf, {.tsc_deadline_timer = true}).ecx & 1u << 24);
  EXPECT_FALSE(Shape(leaf, {}).ecx & 1u << 24);
}

}  // namespace
}  // namespace cube::vmm
