#Requires -RunAsAdministrator
#Requires -Modules Hyper-V
# Writes a generation as a VHDX file and attaches it to a machine of Hyper-V, which cannot attach files of a drive that hikae made.
#
#     .\hyper-v.ps1 C:\disks\pc.hik@latest D:\vm\pc.vhdx restored
param(
    [Parameter(Mandatory)] [string] $Image,
    [Parameter(Mandatory)] [ValidatePattern('\.vhdx$')] [string] $File,
    [Parameter(Mandatory)] [string] $Machine
)
$ErrorActionPreference = 'Stop'
hikae export $Image $File
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
Add-VMHardDiskDrive -VMName $Machine -Path $File
