#include "vmm/assist/instruction.h"

#include <capstone/capstone.h>
#include <gtest/gtest.h>

#include <vector>

namespace cube::vmm {
namespace {

TEST(InstructionDecoder, WhatFollowsAnInstructionIsNotPartOfIt) {
  InstructionDecoder decoder;
  for (uint8_t next : {0x90, 0x9b, 0xff, 0x00}) {
    // xsavec64 (%rdi); something
    const uint8_t code[] = {0x48, 0x0f, 0xc7, 0x27, next};
    auto instruction = decoder.Decode(code);
    ASSERT_TRUE(instruction);
    EXPECT_EQ(instruction->id, static_cast<uint32_t>(X86_INS_XSAVEC64));
    EXPECT_EQ(instruction->length, 4);
    EXPECT_EQ(instruction->operands[0].kind, Operand::Kind::kMemory);
    EXPECT_EQ(instruction->operands[0].memory.base, 7);
  }
}

// More than are remembered, each decoded anew or not: the answers are the same.
TEST(InstructionDecoder, RememberedOrNotTheAnswersAreTheSame) {
  InstructionDecoder decoder;
  for (int turn = 0; turn < 3; ++turn) {
    for (int vector = 0; vector < 200; ++vector) {
      const uint8_t code[] = {0xcd, static_cast<uint8_t>(vector)};  // int n
      auto instruction = decoder.Decode(code);
      ASSERT_TRUE(instruction);
      EXPECT_EQ(instruction->mnemonic, "int");
      EXPECT_EQ(static_cast<uint8_t>(instruction->operands[0].immediate), vector);
    }
  }
}

TEST(InstructionDecoder, TheBeginningOfARememberedInstructionIsNone) {
  InstructionDecoder decoder;
  const uint8_t code[] = {0x48, 0x0f, 0xc7, 0x27};
  ASSERT_TRUE(decoder.Decode(code));
  EXPECT_FALSE(decoder.Decode(std::span(code).first(3)));
  EXPECT_FALSE(decoder.Decode({}));
}

}  // namespace
}  // namespace cube::vmm
