#Requires -RunAsAdministrator
# Has Task Scheduler capture a volume every Sunday at 3, or at the next start of the machine after that.
#
#     .\weekly.ps1 C: E:\disks\system.hik
param(
    [Parameter(Mandatory)] [ValidatePattern('^[A-Za-z]:$')] [string] $Volume,
    [Parameter(Mandatory)] [string] $Image
)
$ErrorActionPreference = 'Stop'
$script = Join-Path $PSScriptRoot 'capture-running.ps1'
$action = New-ScheduledTaskAction -Execute 'powershell.exe' `
    -Argument "-NoProfile -ExecutionPolicy Bypass -File `"$script`" $Volume `"$Image`""
$trigger = New-ScheduledTaskTrigger -Weekly -DaysOfWeek Sunday -At 3am
$settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -ExecutionTimeLimit (New-TimeSpan -Hours 12)
Register-ScheduledTask -TaskName 'hikae weekly capture' -Action $action -Trigger $trigger -Settings $settings `
    -User 'SYSTEM' -RunLevel Highest
