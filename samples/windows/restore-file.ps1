# Takes one file from the newest generation not after a date.
#
#     .\restore-file.ps1 C:\disks\pc.hik 2026-11-16 /p2/Users/me/letter.txt C:\restored
param(
    [Parameter(Mandatory)] [string] $Image,
    [Parameter(Mandatory)] [string] $When,
    [Parameter(Mandatory)] [string] $Path,
    [Parameter(Mandatory)] [string] $Folder
)
$ErrorActionPreference = 'Stop'
New-Item -ItemType Directory -Force $Folder | Out-Null
hikae list $Image
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
hikae cp "${Image}@${When}:${Path}" $Folder
exit $LASTEXITCODE
