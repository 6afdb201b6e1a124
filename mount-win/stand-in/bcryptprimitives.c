/* For tests under Wine only: Rust's standard library asks Windows' bcryptprimitives.dll for random bytes, and Wine 8 has none. */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL ProcessPrng(PBYTE data, SIZE_T len)
{
    return RtlGenRandom(data, (ULONG)len);
}
