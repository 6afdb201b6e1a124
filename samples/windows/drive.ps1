# Shows an image as a drive letter, opens it in Explorer, and takes the drive away when Enter is pressed. Needs Dokan 2.
#
#     .\drive.ps1 C:\disks\pc.hik X:
param(
    [Parameter(Mandatory)] [string] $Image,
    [Parameter(Mandatory)] [ValidatePattern('^[A-Za-z]:$')] [string] $Drive
)
$ErrorActionPreference = 'Stop'
hikae mount $Image $Drive
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
try {
    explorer.exe "$Drive\latest"
    Read-Host "Copy what you need from $Drive, close its windows, and press Enter" | Out-Null
} finally {
    hikae umount $Drive
}
exit $LASTEXITCODE
