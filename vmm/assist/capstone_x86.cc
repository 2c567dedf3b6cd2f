// Capstone's table of processors names the entry points of every one of them, and so a static
// program would hold all of their tables: 4 MB, of which a running VMM drags a good part into
// memory beside what it uses. The linker takes these instead; cs_open() of another processor than
// x86 says CS_ERR_ARCH.
#include <capstone/capstone.h>

#define CUBE_WITHOUT(processor)                                            \
  extern "C" cs_err processor##_global_init(void*) { return CS_ERR_ARCH; } \
  extern "C" cs_err processor##_option(void*, cs_opt_type, size_t) { return CS_ERR_ARCH; }

CUBE_WITHOUT(AArch64)
CUBE_WITHOUT(ARM)
CUBE_WITHOUT(EVM)
CUBE_WITHOUT(M680X)
CUBE_WITHOUT(M68K)
CUBE_WITHOUT(Mips)
CUBE_WITHOUT(PPC)
CUBE_WITHOUT(Sparc)
CUBE_WITHOUT(SystemZ)
CUBE_WITHOUT(TMS320C64x)
CUBE_WITHOUT(XCore)
