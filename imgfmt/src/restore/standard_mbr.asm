; The standard boot code of an MBR, for `hikae restore --boot-code=standard`: bytes 0 to 439 of the first sector.
;
; Moves itself out of the way, looks for the one active partition, loads its first sector to 0:7c00 and jumps there with DL = the BIOS drive and
; DS:SI (and DS:BP, as some boot sectors expect) = the entry of the partition. Reads by sector number where the BIOS can (INT 13h function 42h),
; else by cylinder, head and sector from the entry. Needs no more than an 8086.
;
; nasm -f bin -o standard_mbr.bin standard_mbr.asm
; A test assembles this file and compares the result with standard_mbr.bin, which the program carries.

        bits 16
        cpu 8086
        org 0x600

LOADED  equ 0x7c00                      ; where the BIOS puts the MBR, and where the boot sector goes
TABLE   equ 0x7be                       ; the four entries, after the move
TRIES   equ 5

start:  cli
        xor ax, ax
        mov ss, ax
        mov sp, LOADED
        mov ds, ax
        mov es, ax
        sti
        cld
        mov si, LOADED
        mov di, 0x600
        mov cx, 256
        rep movsw
        jmp 0:moved

moved:  test dl, 0x80                   ; a few BIOSes leave DL undefined; the first hard disk is the best guess then
        jnz drive_known
        mov dl, 0x80
drive_known:
        mov [drive], dl
        mov bx, TABLE
        xor bp, bp                      ; the active entry
        mov cx, 4
find:   mov al, [bx]
        cmp al, 0x80
        je active
        or al, al                       ; anything but 0 and 80h: no table
        jnz bad_table
        jmp next
active: or bp, bp                       ; two active ones: no table
        jnz bad_table
        mov bp, bx
next:   add bx, 16
        loop find
        or bp, bp
        jz none_active

        mov di, TRIES
read:   push di
        call load
        pop di
        jnc loaded
        xor ax, ax                      ; reset the drive, and once more
        mov dl, [drive]
        int 0x13
        dec di
        jnz read
        mov si, text_read
        jmp stop

loaded: cmp word [LOADED + 510], 0xaa55
        mov si, text_boot
        jne stop
        mov si, bp
        mov dl, [drive]
        jmp 0:LOADED

; Loads the first sector of the entry at BP to 0:7c00. Carry is set where that fails.
load:   mov ah, 0x41                    ; is there function 42h?
        mov bx, 0x55aa
        mov dl, [drive]
        int 0x13
        jc by_chs
        cmp bx, 0xaa55
        jne by_chs
        test cl, 1
        jz by_chs
        mov ax, [bp + 8]
        mov [packet.lba], ax
        mov ax, [bp + 10]
        mov [packet.lba + 2], ax
        mov word [packet.count], 1      ; some BIOSes change it
        mov si, packet
        mov ah, 0x42
        mov dl, [drive]
        int 0x13
        ret
by_chs: mov ax, 0x0201
        mov bx, LOADED
        mov dh, [bp + 1]
        mov cx, [bp + 2]
        mov dl, [drive]
        int 0x13
        ret

none_active:
        mov si, text_none
        jmp stop
bad_table:
        mov si, text_table
stop:   lodsb
        or al, al
        jz halt
        push si
        push bp                         ; some video BIOSes change it
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        pop bp
        pop si
        jmp stop
halt:   sti
        hlt
        jmp halt

text_none:  db "No active partition", 13, 10, 0
text_table: db "Invalid partition table", 13, 10, 0
text_read:  db "Error loading operating system", 13, 10, 0
text_boot:  db "Missing operating system", 13, 10, 0

        align 4, db 0
packet: db 16, 0
.count: dw 1
        dw LOADED, 0
.lba:   dd 0, 0
drive:  db 0x80

        times 440 - ($ - $$) db 0
