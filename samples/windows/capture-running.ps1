#Requires -RunAsAdministrator
# Captures a volume that is in use: makes a shadow copy of it, captures that, and removes it, also after a failure.
#
#     .\capture-running.ps1 C: E:\disks\system.hik
param(
    [Parameter(Mandatory)] [ValidatePattern('^[A-Za-z]:$')] [string] $Volume,
    [Parameter(Mandatory)] [string] $Image
)
$ErrorActionPreference = 'Stop'
$made = Invoke-CimMethod -ClassName Win32_ShadowCopy -MethodName Create -Arguments @{ Volume = "$Volume\"; Context = 'ClientAccessible' }
if ($made.ReturnValue -ne 0) { throw "no shadow copy of $Volume could be made: error $($made.ReturnValue)" }
$shadow = Get-CimInstance Win32_ShadowCopy -Filter "ID = '$($made.ShadowID)'"
try {
    hikae capture $shadow.DeviceObject $Image
    $code = $LASTEXITCODE
} finally {
    Remove-CimInstance $shadow
}
exit $code
