; First sector of an active partition that proves that the disk boots and that its content is right:
;  1. prints BOOTPROOF-TINY to COM1 and to the screen
;  2. reads COUNT sectors of the partition, STRIDE apart, from sector 8 on, adds their 32-bit words up (rotating the sum left by one bit after each), and
;     compares that with the sum that mk-tiny stored in this sector: SUM OK or BAD
;  3. ends QEMU through -device isa-debug-exit,iobase=0xf4: status 33 where all is well, 35 where not. Elsewhere it halts.
; It checks that DS:SI is the active entry of the table, as the standard boot code promises.
;
; nasm -f bin -DCOUNT=n -DSTRIDE=m -o tiny-vbr.bin tiny-vbr.asm

        bits 16
        org 0x7c00
start:  cli
        mov bx, si                      ; the entry, still in the MBR's segment 0
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        cld
        mov [drive], dl
        ; COM1: 115200 8N1
        mov dx, 0x3fb
        mov al, 0x80
        out dx, al
        mov dx, 0x3f8
        mov al, 1
        out dx, al
        inc dx
        xor al, al
        out dx, al
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        mov eax, [start_lba]
        cmp [bx + 8], eax               ; the entry that SI named is ours
        jne bad
        mov si, hello
        call puts
        mov eax, [start_lba]
        add eax, 8
        mov [lba], eax
        mov cx, COUNT
        xor ebp, ebp
.read:  push cx
        mov ah, 0x42
        mov si, packet
        mov dl, [drive]
        int 0x13
        jc bad
        mov si, 0x8000
        mov cx, 128
.sum:   lodsd
        add ebp, eax
        rol ebp, 1
        loop .sum
        add dword [lba], STRIDE
        pop cx
        loop .read
        cmp ebp, [want]
        jne bad
        mov si, sum_ok
        call puts
        mov al, 0x10
        jmp leave
bad:    mov si, sum_bad
        call puts
        mov al, 0x11
leave:  mov dx, 0xf4
        out dx, al
.halt:  hlt
        jmp .halt

puts:   lodsb
        or al, al
        jz .done
        push ax
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        pop ax
        mov dx, 0x3f8
        out dx, al
        mov ah, 0x0e
        mov bx, 7
        push bx
        int 0x10
        pop bx
        jmp puts
.done:  ret

hello:   db "BOOTPROOF-TINY", 13, 10, 0
sum_ok:  db "SUM OK", 13, 10, 0
sum_bad: db "BAD", 13, 10, 0
        align 4, db 0
packet: db 16, 0
        dw 1, 0x8000, 0
lba:    dd 0, 0
drive:  db 0
        times 0x1ec - ($ - $$) db 0
start_lba: dd 0                         ; first sector of the partition, written by mk-tiny
want:   dd 0                            ; the sum, written by mk-tiny
        times 510 - ($ - $$) db 0
        dw 0xaa55
