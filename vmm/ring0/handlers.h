#ifndef CUBE_VMM_RING0_HANDLERS_H_
#define CUBE_VMM_RING0_HANDLERS_H_

#include <cstdint>

#include "vmm/ring0/arithmetic.h"
#include "vmm/ring0/op.h"

// What carries out each operation; the decoder picks by operation, operand size in bytes and form.
// A null handler means there is none for this combination: the instruction is handed to KVM.
namespace cube::vmm::ring0 {

enum class Form : uint8_t {
  kRegReg,     // reg is the destination, base the source
  kRegMem,     // reg <- memory
  kMemReg,     // memory <- reg
  kRegImm,
  kMemImm,
  kLockMemReg,
  kLockMemImm,
};

// handlers_integer.cc
Handler AluHandler(Alu alu, unsigned size, Form form);
Handler MoveHandler(unsigned size, Form form);
Handler LeaHandler(unsigned size);
// MOVZX and MOVSX, MOVSXD among them.
Handler ExtendHandler(bool is_signed, unsigned from, unsigned to, bool from_memory);
enum class Unary : uint8_t { kInc, kDec, kNot, kNeg };
Handler UnaryHandler(Unary unary, unsigned size, bool memory, bool locked);
Handler ExchangeHandler(unsigned size, bool memory);
Handler ExchangeAddHandler(unsigned size, bool memory, bool locked);
Handler CompareExchangeHandler(unsigned size, bool memory, bool locked);
Handler CompareExchangeWideHandler(unsigned size);  // CMPXCHG8B and 16B; 8 or 16
Handler ConditionalMoveHandler(unsigned condition, unsigned size, bool memory);
Handler SetConditionHandler(unsigned condition, bool memory);
Handler SignExtendHandler(unsigned size);   // CBW, CWDE, CDQE
Handler SignSpreadHandler(unsigned size);   // CWD, CDQ, CQO
Handler SwapBytesHandler(unsigned size);

// handlers_bits.cc
enum class Count : uint8_t { kImmediate, kCl };
Handler ShiftHandler(Shift shift, unsigned size, bool memory, Count count);
Handler DoubleShiftHandler(bool right, unsigned size, bool memory, Count count);
enum class BitTest : uint8_t { kTest, kSet, kReset, kComplement };
Handler BitTestHandler(BitTest test, unsigned size, Form form);
enum class BitScan : uint8_t { kForward, kReverse, kTrailing, kLeading, kPopulation };
Handler BitScanHandler(BitScan scan, unsigned size, bool memory);
enum class Product : uint8_t { kMul, kImul, kDiv, kIdiv };
Handler ProductHandler(Product product, unsigned size, bool memory);
Handler ImulHandler(unsigned size, bool memory, bool immediate);

// handlers_string.cc
enum class Repeat : uint8_t { kNone, kWhileEqual, kWhileNotEqual };  // REP is kWhileEqual
enum class String : uint8_t { kMove, kStore, kLoad, kCompare, kScan };
Handler StringHandler(String string, unsigned size, Repeat repeat);

// handlers_control.cc
Handler JumpHandler();                      // relative: the target is the page start plus immediate
Handler ConditionalJumpHandler(unsigned condition);
Handler JumpCountZeroHandler(unsigned kind);  // 0 LOOPNE, 1 LOOPE, 2 LOOP, 3 JRCXZ
Handler IndirectJumpHandler(bool memory);
Handler CallHandler();
Handler IndirectCallHandler(bool memory);
Handler ReturnHandler();                    // immediate: bytes to drop
Handler PushHandler(Form form);             // kRegReg, kRegImm or kRegMem
Handler PopHandler(bool memory);
Handler LeaveHandler();
Handler PushFlagsHandler();
Handler PopFlagsHandler();
Handler InterruptReturnHandler();
Handler SystemReturnHandler();  // SYSRET to 64-bit mode
Handler NoOperationHandler();

// handlers_system.cc
Handler HandOffHandler();
Handler AssistHandler();
Handler HaltHandler();
// CMC, CLC, STC, CLI, STI, CLD, STD by opcode.
Handler FlagHandler(uint8_t opcode);
Handler PauseHandler();
Handler FenceHandler();
Handler AlignmentFlagHandler(bool set);     // STAC, CLAC
Handler SwapGsHandler();
Handler SegmentBaseHandler(unsigned kind, unsigned size);  // RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE
Handler ReadMsrHandler();
Handler WriteMsrHandler();
Handler ReadTscHandler(bool with_aux);
Handler ReadControlHandler();               // reg: the control register, base: destination
Handler WriteControlHandler();
Handler InvalidatePageHandler();
Handler StoreIdtHandler();                  // SIDT
Handler ReadSegmentHandler(bool memory, unsigned size);  // reg: the segment register's number
Handler WriteSegmentHandler(bool memory);
// `size` bytes; the port is the immediate or, if that is negative, DX.
Handler PortHandler(bool output, unsigned size);
Handler ExceptionHandler();                 // immediate: the vector; base is 1 for a trap

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_HANDLERS_H_
