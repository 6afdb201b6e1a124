# Attaches the newest generation of an image to a machine of VirtualBox, which may write to it: what it writes goes to the overlay, and the image stays as it is.
# Takes the disk and the drive away when Enter is pressed. Needs Dokan 2 and VirtualBox.
#
#     .\virtualbox.ps1 C:\disks\pc.hik X: C:\disks\trial.overlay restored
param(
    [Parameter(Mandatory)] [string] $Image,
    [Parameter(Mandatory)] [ValidatePattern('^[A-Za-z]:$')] [string] $Drive,
    [Parameter(Mandatory)] [string] $Overlay,
    [Parameter(Mandatory)] [string] $Machine,
    [string] $Controller = 'SATA'
)
$ErrorActionPreference = 'Stop'
$manage = Join-Path $env:ProgramFiles 'Oracle\VirtualBox\VBoxManage.exe'
hikae mount $Image $Drive --overlay $Overlay
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
$disk = "$Drive\latest\disk.vdi"
$place = @('storageattach', $Machine, '--storagectl', $Controller, '--port', '0', '--device', '0')
try {
    & $manage @place --type hdd --medium $disk
    if ($LASTEXITCODE -ne 0) { throw "VirtualBox does not take $disk" }
    Read-Host "Start $Machine. When it is switched off again, press Enter" | Out-Null
    & $manage @place --medium none
    & $manage closemedium disk $disk
} finally {
    hikae umount $Drive
}
exit $LASTEXITCODE
