#Requires -RunAsAdministrator
# Has Task Scheduler capture the disk that Windows runs from, while it runs, every Sunday at 3, or at the next start of the machine after that.
#
#     .\weekly.ps1 \\.\PhysicalDrive0 E:\disks\pc.hik
#     .\weekly.ps1 \\.\C: E:\disks\system.hik
param(
    [Parameter(Mandatory)] [ValidatePattern('^\\\\[.?]\\')] [string] $Source,
    [Parameter(Mandatory)] [string] $Image
)
$ErrorActionPreference = 'Stop'
$hikae = (Get-Command hikae).Source
$action = New-ScheduledTaskAction -Execute $hikae -Argument "capture $Source `"$Image`" --live"
$trigger = New-ScheduledTaskTrigger -Weekly -DaysOfWeek Sunday -At 3am
$settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -ExecutionTimeLimit (New-TimeSpan -Hours 12)
Register-ScheduledTask -TaskName 'hikae weekly capture' -Action $action -Trigger $trigger -Settings $settings `
    -User 'SYSTEM' -RunLevel Highest
